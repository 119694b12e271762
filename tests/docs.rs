//! What the documents name exists: files, tests, items of the code, `make` targets, links and their headings.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use testkit::workspace_root;

/// Most lines of README.md. Details have their place in docs/.
const README_LINES: usize = 150;

/// Folders with nothing of the repository in them.
const NOT_OURS: [&str; 6] = [".git", ".tools", "target", "build", "corpus", "artifacts"];

/// Names with so many underscores are those of tests.
const UNDERSCORES_OF_A_NAME: usize = 3;

/// What a name without a folder ends with if it is one of a file.
const ENDINGS: [&str; 11] = [
    ".rs", ".sh", ".md", ".toml", ".json", ".py", ".patch", ".yml", ".svg", ".hex", ".lock",
];

struct Repository {
    root: PathBuf,
    /// All files and folders, from the root.
    paths: BTreeSet<String>,
    /// All words of all Rust files, with the file; of functions also with `fn` before them.
    words: BTreeSet<(String, String)>,
    /// Targets of the Makefile.
    targets: BTreeSet<String>,
}

impl Repository {
    fn read() -> Self {
        let root = workspace_root();
        let mut paths = BTreeSet::new();
        walk(&root, &root, &mut paths);
        let mut words = BTreeSet::new();
        for path in paths.iter().filter(|path| path.ends_with(".rs")) {
            let text = read(&root.join(path));
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let mut before = "";
            for word in text.split(|c| !is_word(c)).filter(|word| !word.is_empty()) {
                words.insert((word.to_owned(), path.clone()));
                if before == "fn" {
                    words.insert((format!("fn {word}"), path.clone()));
                }
                before = word;
            }
        }
        let makefile = read(&root.join("Makefile"));
        let target = |line: &str| {
            let (name, rest) = line.split_once(':')?;
            let named = name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            (named && !name.is_empty() && !rest.starts_with('=')).then(|| name.to_owned())
        };
        Self {
            targets: makefile.lines().filter_map(target).collect(),
            root,
            paths,
            words,
        }
    }

    /// README.md, CONTRIBUTING.md and all of docs/.
    fn documents(&self) -> Vec<Document> {
        let of_docs = |path: &&String| path.starts_with("docs/") && path.ends_with(".md");
        let others = ["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
        let paths = others.iter().chain(self.paths.iter().filter(of_docs));
        paths.map(|path| Document::read(&self.root, path)).collect()
    }

    /// Where a path is that may leave out its first folders, as in `cache/store.rs`. Several where it is not clear.
    fn places(&self, path: &str) -> Vec<&str> {
        let path = path.trim_end_matches('/');
        let end = format!("/{path}");
        let here = |known: &&String| *known == path || known.ends_with(&end) || is_pattern_of(path, known);
        self.paths.iter().filter(here).map(String::as_str).collect()
    }

    /// Whether a word occurs in the code, in one of `places` if there are any.
    fn has_word(&self, name: &str, places: &[&str]) -> bool {
        let within = |path: &str| places.iter().any(|place| Path::new(path).starts_with(place));
        self.words
            .range((name.to_owned(), String::new())..)
            .take_while(|(word, _)| word == name)
            .any(|(_, path)| places.is_empty() || within(path))
    }
}

/// Whether `path` is `pattern` with something in place of its star.
fn is_pattern_of(pattern: &str, path: &str) -> bool {
    let Some((start, end)) = pattern.split_once('*') else {
        return false;
    };
    path.len() >= pattern.len() && path.starts_with(start) && path.ends_with(end)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn walk(root: &Path, folder: &Path, paths: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("an entry of a folder");
        let (path, name) = (entry.path(), entry.file_name());
        if NOT_OURS.iter().any(|other| name == *other) {
            continue;
        }
        let from_root = path.strip_prefix(root).expect("below the root");
        paths.insert(from_root.to_string_lossy().into_owned());
        if entry.file_type().expect("a type of a file").is_dir() {
            walk(root, &path, paths);
        }
    }
}

struct Document {
    path: String,
    text: String,
    /// Lines outside of code blocks.
    prose: Vec<String>,
    /// Lines of code blocks.
    code: Vec<String>,
}

impl Document {
    fn read(root: &Path, path: &str) -> Self {
        let text = read(&root.join(path));
        let (mut prose, mut code, mut within) = (Vec::new(), Vec::new(), false);
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                within = !within;
            } else if within {
                code.push(line.to_owned());
            } else {
                prose.push(line.to_owned());
            }
        }
        Self {
            path: path.to_owned(),
            text,
            prose,
            code,
        }
    }

    /// What stands in backticks, line by line.
    fn spans(&self) -> impl Iterator<Item = Vec<&str>> {
        self.prose
            .iter()
            .map(|line| line.split('`').skip(1).step_by(2).collect())
    }

    /// Targets of links, without those that lead elsewhere.
    fn links(&self) -> Vec<&str> {
        let inline = self.text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let inline = inline.map(|(link, _)| link.split(' ').next().unwrap_or_default());
        let sources = ["src=\"", "href=\""]
            .into_iter()
            .flat_map(|start| self.text.split(start).skip(1));
        let sources = sources.filter_map(|rest| rest.split_once('"')).map(|(link, _)| link);
        inline
            .chain(sources)
            .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
            .collect()
    }

    /// Anchors of the headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for heading in self.prose.iter().filter(|line| line.starts_with('#')) {
            let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
            let text: String = heading.trim_start_matches('#').trim().chars().filter(kept).collect();
            let anchor = text.to_lowercase().replace(' ', "-");
            let mut name = anchor.clone();
            let mut number = 0;
            while !anchors.insert(name) {
                number += 1;
                name = format!("{anchor}-{number}");
            }
        }
        anchors
    }
}

/// What stands in backticks, if it is something that has to exist.
#[derive(PartialEq, Debug)]
enum Named<'a> {
    Path(&'a str),
    Target(&'a str),
    Test(&'a str),
    /// Something else of the code.
    Item(&'a str),
}

impl<'a> Named<'a> {
    fn of(span: &'a str, repository: &Repository) -> Option<Self> {
        if let Some(arguments) = span.strip_prefix("make ") {
            return arguments.split(' ').find(|word| !word.contains('=')).map(Self::Target);
        }
        if !span.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:*".contains(c)) {
            return None;
        }
        let first = span.split('/').next().unwrap_or_default();
        if NOT_OURS.contains(&first) || span.contains("://") || span.starts_with('/') {
            return None;
        }
        let is_file = ENDINGS.iter().any(|ending| span.ends_with(ending));
        if is_file || span.contains('/') && repository.paths.contains(first) {
            return Some(Self::Path(span));
        }
        let words: Vec<&str> = span.split("::").collect();
        let is_word = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let last = words.last().copied().unwrap_or_default();
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !words.iter().all(is_word) {
            None
        } else if last.matches('_').count() >= UNDERSCORES_OF_A_NAME && last.chars().all(is_name) {
            Some(Self::Test(last))
        } else {
            (words.len() > 1).then_some(Self::Item(last))
        }
    }
}

#[test]
fn what_stands_in_backticks_exists() {
    let repository = Repository::read();
    let mut missing = Vec::new();
    for document in repository.documents() {
        for spans in document.spans() {
            // A test that is named after a file is in that file.
            let mut places = Vec::new();
            for span in spans {
                let exists = match Named::of(span, &repository) {
                    None => true,
                    Some(Named::Target(target)) => repository.targets.contains(target),
                    Some(Named::Path(path)) => {
                        places = repository.places(path);
                        !places.is_empty()
                    }
                    Some(Named::Test(test)) => repository.has_word(&format!("fn {test}"), &places),
                    Some(Named::Item(item)) => repository.has_word(item, &[]),
                };
                if !exists {
                    missing.push(format!("{}: `{span}`", document.path));
                }
            }
        }
        let commands = document
            .code
            .iter()
            .filter_map(|line| line.trim_start().strip_prefix("make "));
        for command in commands {
            let target = command.split_whitespace().find(|word| !word.contains('='));
            if target.is_some_and(|target| !repository.targets.contains(target)) {
                missing.push(format!("{}: make {command}", document.path));
            }
        }
    }
    assert!(missing.is_empty(), "there is no\n  {}", missing.join("\n  "));
}

#[test]
fn links_lead_somewhere() {
    let repository = Repository::read();
    let mut dead = Vec::new();
    for document in repository.documents() {
        for link in document.links() {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&document.path).parent().unwrap_or(Path::new(""));
            let target = match path {
                "" => document.path.clone(),
                path => from_root(&folder.join(path)),
            };
            let whole =
                repository.paths.contains(&target) && (anchor.is_empty() || has_anchor(&repository, &target, anchor));
            if !whole {
                dead.push(format!("{}: {link}", document.path));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n  {}", dead.join("\n  "));
}

fn has_anchor(repository: &Repository, path: &str, anchor: &str) -> bool {
    path.ends_with(".md") && Document::read(&repository.root, path).anchors().contains(anchor)
}

/// The path without its `..`.
fn from_root(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    parts.join("/")
}

#[test]
fn readme_is_short() {
    let lines = read(&workspace_root().join("README.md")).lines().count();
    assert!(lines <= README_LINES, "{lines} lines");
}

#[test]
fn what_has_to_exist_is_told_from_what_need_not() {
    let repository = Repository::read();
    for (span, named) in [
        ("crates/core/src/wire/", Some(Named::Path("crates/core/src/wire/"))),
        ("cache/no_such_file.rs", Some(Named::Path("cache/no_such_file.rs"))),
        ("tests/no_such_folder", Some(Named::Path("tests/no_such_folder"))),
        ("make bench ONLY=1", Some(Named::Target("bench"))),
        ("a_test_of_this_name", Some(Named::Test("a_test_of_this_name"))),
        ("Cache::apply_all", Some(Named::Item("apply_all"))),
        ("target/release/nats-kvcache", None),
        ("nats://", None),
        ("MAX_CLOCK_SKEW_SECS", None),
        ("lattice.*.kvcache", None),
        ("max_payload", None),
    ] {
        assert_eq!(Named::of(span, &repository), named, "{span}");
    }
    assert!(repository.places("no_such_file.rs").is_empty());
    assert!(!repository.has_word("fn links_lead_somewhere", &["crates"]));
    assert!(repository.has_word("fn links_lead_somewhere", &["tests/docs.rs"]));
    // This file is read too.
    let constant = "underscores_of_a_name".to_uppercase();
    assert!(repository.has_word(&constant, &[]) && !repository.has_word(&format!("fn {constant}"), &[]));
    assert!(!repository.targets.contains("no-such-target") && repository.targets.contains("bench-quick"));
}
