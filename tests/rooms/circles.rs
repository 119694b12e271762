//! No circles of files: a reader of one file has to know those that it uses, and in a circle that is all of them.
//!
//! A file uses another when its code, tests apart, names something that is defined there: in an import or in a path. An
//! import of something that a module only hands on counts as one of the file that defines it. Methods are not followed:
//! `impl` blocks of one type may stand in several files, and use the one of the type.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn no_files_use_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = fs::read_dir(root.join("crates")).expect("a folder of crates");
    let mut folders: Vec<PathBuf> = crates.map(|entry| entry.expect("readable").path()).collect();
    folders.push(root.to_owned());
    folders.sort();
    let mut found = Vec::new();
    for start in folders.iter().flat_map(|folder| starts(&folder.join("src"))) {
        let read = |path: &Path| fs::read_to_string(root.join(path)).ok();
        let program = Program::read(start.strip_prefix(root).expect("below the root"), &read);
        let uses = program.uses();
        found.extend(circles(&uses).iter().map(|circle| shown(circle)));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The files that the crates of a folder begin with.
fn starts(sources: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["lib.rs", "main.rs"].map(|name| sources.join(name)).into();
    if let Ok(entries) = fs::read_dir(sources.join("bin")) {
        found.extend(entries.map(|entry| entry.expect("readable").path()));
    }
    found.retain(|path| path.is_file());
    found.sort();
    found
}

fn shown(circle: &[String]) -> String {
    let mut files = circle.to_vec();
    files.extend(circle.first().cloned());
    files.join(" -> ")
}

// --- graphs

/// Which files each file uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// A shortest circle through each file that is in one, each circle once.
fn circles(uses: &Uses) -> Vec<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for start in uses.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(circle) = circle_through(uses, start) {
            seen.extend(circle.iter().cloned());
            found.push(circle);
        }
    }
    found
}

fn circle_through(uses: &Uses, start: &str) -> Option<Vec<String>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for used in uses.get(file).into_iter().flatten() {
            if used == start {
                let way = std::iter::successors(Some(file), |file| before.get(file).copied());
                let mut circle: Vec<String> = way.map(str::to_owned).collect();
                circle.reverse();
                return Some(circle);
            }
            if !before.contains_key(used.as_str()) {
                before.insert(used, file);
                queue.push_back(used);
            }
        }
    }
    None
}

// --- the files of a crate

/// A path in a `use`, and the name that it gets here. A name of `*` stands for all that is there.
struct Import {
    path: Vec<String>,
    name: String,
    /// It is only handed on.
    public: bool,
}

/// A file is a module; modules within a file belong to it.
struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Names of what it defines.
    items: BTreeSet<String>,
    imports: Vec<Import>,
    /// All paths of two names and more in its code, and all names that stand alone.
    paths: BTreeSet<Vec<String>>,
}

struct Program {
    modules: Vec<Module>,
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Module(usize),
    /// Something that this module defines.
    Item(usize),
}

impl Program {
    /// The crate that begins with the file `start`.
    fn read(start: &Path, read: &impl Fn(&Path) -> Option<String>) -> Program {
        let mut program = Program { modules: Vec::new() };
        let folder = start.parent().expect("a file in a folder");
        let text = read(start).unwrap_or_else(|| panic!("{} cannot be read", start.display()));
        program.add(None, start, folder, &text, read);
        program
    }

    /// Adds a file and those of the modules that it declares, which lie in `folder`.
    fn add(
        &mut self,
        parent: Option<usize>,
        file: &Path,
        folder: &Path,
        text: &str,
        read: &impl Fn(&Path) -> Option<String>,
    ) -> usize {
        let source = Source::of(&tokens(text));
        let number = self.modules.len();
        self.modules.push(Module {
            file: file.display().to_string(),
            parent,
            children: BTreeMap::new(),
            items: source.items,
            imports: source.imports,
            paths: source.paths,
        });
        for (name, path) in source.declared {
            let candidates = match path {
                Some(path) => vec![joined(file.parent().expect("a file in a folder"), &path)],
                None => vec![folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")],
            };
            let Some((file, text)) = candidates.iter().find_map(|file| Some((file, read(file)?))) else {
                panic!(
                    "{} declares {name}, of which there is no file",
                    self.modules[number].file
                );
            };
            let child = self.add(Some(number), file, &folder.join(&name), &text, read);
            self.modules[number].children.insert(name, child);
        }
        number
    }

    /// Which files use which.
    fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (number, module) in self.modules.iter().enumerate() {
            let used = uses.entry(module.file.clone()).or_default();
            let named = |name: &String| module.paths.iter().any(|path| path[0] == *name);
            let imports = module.imports.iter().filter(|import| !import.public);
            let places = imports.filter_map(|import| self.find(number, &import.path));
            let in_code = module.paths.iter().filter_map(|path| self.find(number, path));
            // What is taken with all else of its module counts where it is named.
            let taken = module.imports.iter().filter(|import| import.name == "*");
            let taken = taken.filter_map(|import| match self.find(number, &import.path)? {
                Place::Module(all) => Some(all),
                Place::Item(_) => None,
            });
            let taken = taken.flat_map(|all| {
                let names = self.modules[all].names();
                names
                    .filter(|name| named(name))
                    .filter_map(move |name| self.within(all, std::slice::from_ref(name), 0))
            });
            for place in places.chain(in_code).chain(taken) {
                // An import of a module is one of what is named of it.
                if let Place::Item(place) = place {
                    let file = &self.modules[place].file;
                    if *file != module.file {
                        used.insert(file.clone());
                    }
                }
            }
        }
        uses
    }

    /// What a path in a module leads to, if it leads to this crate.
    fn find(&self, module: usize, path: &[String]) -> Option<Place> {
        self.find_within(module, path, 0)
    }

    fn find_within(&self, module: usize, path: &[String], depth: usize) -> Option<Place> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.within(0, rest, depth),
            "self" => self.within(module, rest, depth),
            "super" => self.within(self.modules[module].parent?, rest, depth),
            _ => self.within(module, path, depth),
        }
    }

    /// What a path leads to that begins in a module. `depth` bounds imports that lead to each other.
    fn within(&self, module: usize, path: &[String], depth: usize) -> Option<Place> {
        if depth > 16 {
            return None;
        }
        let Some((first, rest)) = path.split_first() else {
            return Some(Place::Module(module));
        };
        let it = &self.modules[module];
        if first == "super" {
            return self.within(it.parent?, rest, depth);
        }
        if let Some(child) = it
            .children
            .get(first)
            .filter(|_| !rest.is_empty() || !it.items.contains(first))
        {
            return self.within(*child, rest, depth);
        }
        if it.items.contains(first) {
            return Some(Place::Item(module));
        }
        let named = it.imports.iter().filter(|import| import.name == *first);
        let all = it.imports.iter().filter(|import| import.name == "*");
        // A crate may have the name of what is imported from it.
        let known = named.filter(|import| import.path[0] != *first).find_map(|import| {
            let path: Vec<String> = import.path.iter().chain(rest).cloned().collect();
            self.find_within(module, &path, depth + 1)
        });
        known.or_else(|| {
            all.filter_map(|import| match self.find_within(module, &import.path, depth + 1)? {
                Place::Module(all) => self.within(all, path, depth + 1),
                Place::Item(_) => None,
            })
            .next()
        })
    }
}

impl Module {
    fn names(&self) -> impl Iterator<Item = &String> {
        let imported = self.imports.iter().map(|import| &import.name);
        self.items.iter().chain(self.children.keys()).chain(imported)
    }
}

/// A path below a folder or beside it.
fn joined(folder: &Path, path: &str) -> PathBuf {
    let (mut folder, mut path) = (folder, path);
    while let Some(rest) = path.strip_prefix("../") {
        (folder, path) = (folder.parent().expect("a folder above"), rest);
    }
    folder.join(path)
}

// --- what a source says

#[derive(Default)]
struct Source {
    /// Modules that have files of their own, and where these lie if that is said.
    declared: Vec<(String, Option<String>)>,
    items: BTreeSet<String>,
    imports: Vec<Import>,
    paths: BTreeSet<Vec<String>>,
}

impl Source {
    fn of(tokens: &[String]) -> Source {
        const KEYWORDS: [&str; 9] = [
            "fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod",
        ];
        let mut source = Source::default();
        let (mut at, mut depth) = (0, 0);
        let token = |at: usize| tokens.get(at).map_or("", String::as_str);
        while at < tokens.len() {
            match token(at) {
                "#" if is_for_tests(&tokens[at..]) => {
                    at = after_item(tokens, at);
                    continue;
                }
                "{" => depth += 1,
                "}" => depth -= 1,
                "use" => {
                    let public = at > 0 && [")", "pub"].contains(&token(at - 1));
                    at = source.take_imports(tokens, at + 1, &mut Vec::new(), public);
                    continue;
                }
                "macro_rules" => {
                    source.items.insert(token(at + 2).to_owned());
                }
                "mod" if token(at + 2) == ";" => {
                    // As in `#[path = "..."] mod name;`.
                    let path = at.checked_sub(3).map_or("", |equals| &tokens[equals + 1]);
                    let path = path.strip_prefix('"').filter(|_| token(at - 3) == "=");
                    let name = token(at + 1).to_owned();
                    source
                        .declared
                        .push((name, path.map(|path| path.trim_end_matches('"').to_owned())));
                }
                keyword if depth == 0 && KEYWORDS.contains(&keyword) && is_name(token(at + 1)) => {
                    // `const fn` is named after the `fn`.
                    source.items.insert(token(at + 1).to_owned());
                    at += usize::from(!KEYWORDS.contains(&token(at + 1)));
                }
                name if is_name(name) && !["::", ".", "fn"].contains(&token(at.wrapping_sub(1))) => {
                    let mut path = vec![name.to_owned()];
                    while token(at + 1) == "::" && is_name(token(at + 2)) {
                        path.push(token(at + 2).to_owned());
                        at += 2;
                    }
                    source.paths.insert(path);
                }
                _ => {}
            }
            at += 1;
        }
        source
    }

    /// Takes a tree of imports that begins `at`. Returns what follows it.
    fn take_imports(&mut self, tokens: &[String], mut at: usize, path: &mut Vec<String>, public: bool) -> usize {
        let length = path.len();
        loop {
            match tokens[at].as_str() {
                "{" => {
                    at += 1;
                    while tokens[at] != "}" {
                        at = self.take_imports(tokens, at, path, public);
                        at += usize::from(tokens[at] == ",");
                    }
                    at += 1;
                    break;
                }
                "*" => {
                    let (path, name) = (path.clone(), "*".to_owned());
                    self.imports.push(Import { path, name, public });
                    at += 1;
                    break;
                }
                "::" => at += 1,
                name => {
                    path.push(name.to_owned());
                    at += 1;
                    if tokens[at] == "::" {
                        continue;
                    }
                    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                        path.pop();
                    }
                    let mut name = path.last().expect("just pushed").clone();
                    if tokens[at] == "as" {
                        name.clone_from(&tokens[at + 1]);
                        at += 2;
                    }
                    let path = path.clone();
                    self.imports.push(Import { path, name, public });
                    break;
                }
            }
        }
        path.truncate(length);
        at
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Whether an attribute says that what follows is only there for tests.
fn is_for_tests(tokens: &[String]) -> bool {
    tokens.iter().take(7).eq(["#", "[", "cfg", "(", "test", ")", "]"])
}

/// What follows the item `at` which an attribute stands.
fn after_item(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 && ["}", ";"].contains(&tokens[at - 1].as_str()) {
            break;
        }
    }
    at
}

/// Names, texts and punctuation, without comments.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_text(rest) {
            length
        } else if c == '"' {
            let length = quoted(rest);
            found.push(rest[..length].to_owned());
            length
        } else if c == '\'' {
            character(rest)
        } else if c.is_alphanumeric() || c == '_' {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            found.push("::".to_owned());
            2
        } else {
            if !c.is_whitespace() {
                found.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

/// The length of a text like `r#"..."#` or `b"..."`, if one begins here.
fn raw_text(rest: &str) -> Option<usize> {
    let start = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'));
    let Some(start) = start else {
        let quote = rest.strip_prefix('b').filter(|rest| rest.starts_with(['"', '\'']))?;
        let length = if quote.starts_with('"') {
            quoted(quote)
        } else {
            character(quote)
        };
        return Some(1 + length);
    };
    let marks = start.len() - start.trim_start_matches('#').len();
    let text = start[marks..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(marks));
    let length = text.find(&end).map_or(text.len(), |at| at + end.len());
    Some(rest.len() - text.len() + length)
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character in quotes, or the quote of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => chars
            .skip(1)
            .find(|(_, c)| *c == '\'')
            .map_or(rest.len(), |(at, _)| at + 1),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

// --- that all this can fail

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(files: &[(&str, &str)]) -> Uses {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some(found.1.to_owned())
        };
        Program::read(Path::new("lib.rs"), &read).uses()
    }

    fn circle(files: &[(&str, &str)]) -> Vec<String> {
        circles(&uses(files)).iter().map(|circle| shown(circle)).collect()
    }

    #[test]
    fn a_circle_is_found_however_its_files_name_each_other() {
        let one = ("lib.rs", "pub mod a; mod b; pub use b::B;");
        for (a, b) in [
            ("use crate::B; pub struct A(B);", "use super::a::A; pub struct B(A);"),
            ("pub struct A(crate::b::B);", "pub struct B(super::a::A);"),
            (
                "pub struct A(super::B);",
                "use crate::{a::{self as other}}; pub struct B(other::A);",
            ),
            ("use super::b; pub struct A(b::B);", "use crate::a::*; pub struct B(A);"),
            (
                "use super::*; pub struct A(B);",
                "use super::{a, b}; pub struct B(a::A);",
            ),
        ] {
            assert_eq!(
                circle(&[one, ("a.rs", a), ("b.rs", b)]),
                ["a.rs -> b.rs -> a.rs"],
                "{a} {b}"
            );
        }
    }

    #[test]
    fn a_module_that_only_hands_on_is_looked_through() {
        let files = [
            ("lib.rs", "mod cache;"),
            (
                "cache/mod.rs",
                "mod a; mod b; mod c; pub use a::A; pub(crate) use b::B;",
            ),
            ("cache/a.rs", "pub struct A;"),
            ("cache/b.rs", "use crate::cache::A; pub struct B(A);"),
            ("cache/c.rs", "fn c(a: super::A, b: super::B) {}"),
        ];
        assert_eq!(circle(&files), [""; 0]);
        let uses = uses(&files);
        assert_eq!(uses["cache/b.rs"], BTreeSet::from(["cache/a.rs".to_owned()]));
        assert_eq!(
            uses["cache/c.rs"],
            BTreeSet::from(["cache/a.rs", "cache/b.rs"].map(str::to_owned))
        );
    }

    #[test]
    fn a_module_that_defines_what_its_files_need_may_not_need_them() {
        let parent = "mod child; pub struct Limit; fn f() { child::g() }";
        let child = "use super::Limit; pub fn g() -> Limit { todo!() }";
        assert_eq!(
            circle(&[
                ("lib.rs", "mod parent;"),
                ("parent/mod.rs", parent),
                ("parent/child.rs", child)
            ]),
            ["parent/child.rs -> parent/mod.rs -> parent/child.rs"]
        );
        // To declare a file, and to hand on what is in it, is no use of it.
        let parent = "mod child; pub use child::g; pub struct Limit;";
        assert_eq!(
            circle(&[
                ("lib.rs", "mod parent;"),
                ("parent/mod.rs", parent),
                ("parent/child.rs", child)
            ]),
            [""; 0]
        );
        let parent = "mod child; pub use child::g; pub struct Limit; fn f() { g() }";
        assert_eq!(
            circle(&[
                ("lib.rs", "mod parent;"),
                ("parent/mod.rs", parent),
                ("parent/child.rs", child)
            ])
            .len(),
            1
        );
    }

    #[test]
    fn tests_comments_and_texts_are_no_uses() {
        let lib = ("lib.rs", "mod a; mod b;");
        let b = (
            "b.rs",
            "use super::a::A; pub struct B<'a>(&'a A, char); const C: char = '\"';",
        );
        for a in [
            "pub struct A; #[cfg(test)] mod tests { use super::super::b::B; fn f() {} }",
            "#[cfg(test)] fn f() -> crate::b::B { todo!() } pub struct A;",
            "/// As [`super::b::B`].\npub struct A; // crate::b::B\n/* crate::b::B */",
            "pub struct A; const X: &str = \"\\\" crate::b::B\"; const Y: &str = r#\"\" crate::b::B\"#;",
            "pub struct A; fn f(a: &A) { a.b(); b'\\''; b\"crate::b::B\"; other::b::B; }",
        ] {
            assert_eq!(circle(&[lib, ("a.rs", a), b]), [""; 0], "{a}");
        }
    }
}
