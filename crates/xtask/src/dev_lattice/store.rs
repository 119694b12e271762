//! What the hosts of a demonstration keep their data in.

use std::path::Path;
use std::str::FromStr;

/// What hosts keep their data in: `STORE` of `make run`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Store {
    /// A folder of its own for each host.
    Files,
    /// The URL of one that all hosts use. It may hold a password.
    Shared(String),
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected STORE=file, for a folder of its own for each host, or the URL of a store that \
                                they share, such as STORE=jetstream:demo or STORE=redis://127.0.0.1:6379/";
        match text.split_once(':') {
            None if text == "file" => Ok(Store::Files),
            Some(("file", _)) => Err(format!("three hosts cannot use one folder; {EXPECTED}")),
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => Ok(Store::Shared(text.into())),
            _ => Err(EXPECTED.into()),
        }
    }
}

impl Store {
    /// The setting of a host. Folders of hosts lie in `folder`.
    pub fn of_host(&self, name: &str, folder: &Path) -> String {
        match self {
            Store::Files => format!("file:{}", folder.join(name).display()),
            Store::Shared(url) => url.clone(),
        }
    }

    /// For people; without secrets.
    pub fn describe(&self, folder: &Path) -> String {
        match self {
            Store::Files => format!("a folder for each host in {}", folder.display()),
            Store::Shared(url) => {
                let (scheme, _) = url.split_once(':').unwrap_or((url, ""));
                format!("one for all hosts ({scheme})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_folder_each_or_the_url_of_one_for_all() {
        let folder = Path::new("/tmp/x");
        let files: Store = "file".parse().expect("files");
        assert_eq!(files.of_host("A", folder), "file:/tmp/x/A");
        let shared: Store = "redis://:secret@host/".parse().expect("a URL");
        assert_eq!(shared.of_host("A", folder), "redis://:secret@host/");
        assert!(!shared.describe(folder).contains("secret"));
    }

    #[test]
    fn what_is_no_store_is_told_what_is_expected() {
        for wrong in ["", "files", "redis", "file:/one/folder", "jetstream:", ":bucket"] {
            let error = wrong.parse::<Store>().expect_err("no store for three hosts");
            assert!(
                error.contains("STORE=file,") && error.contains("STORE=redis:"),
                "{error}"
            );
        }
    }
}
