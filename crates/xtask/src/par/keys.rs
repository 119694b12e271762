//! Signing keys, from the same places as `wash` 0.21 takes them, so that both tools sign with the same keys.
//!
//! Seeds are secrets: no error and no output of this module carries one.

use std::fs::{OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, Context, Result};
use clap::Args;
use nkeys::{KeyPair, KeyPairType};
use testkit::sdk_readable;

const SEED_FILE_MODE: u32 = 0o600;
const SEED_FOLDER_MODE: u32 = 0o700;

#[derive(Args)]
pub struct KeyStore {
    /// Account seed that signs the claims, or a file that holds it. Without it: {USER}_account.nk of the key folder
    #[arg(long, value_name = "SEED|FILE", env = "WASH_ISSUER_KEY", hide_env_values = true)]
    issuer: Option<String>,
    /// Service seed that is the provider's identity, or a file that holds it. Without it: {binary}_service.nk
    #[arg(long, value_name = "SEED|FILE", env = "WASH_SUBJECT_KEY", hide_env_values = true)]
    subject: Option<String>,
    /// Folder of keys [default: ~/.wash/keys]; a missing key is generated and kept there
    #[arg(long, value_name = "FOLDER", env = "WASH_KEYS")]
    directory: Option<PathBuf>,
    /// Fail instead of generating a key
    #[arg(long)]
    disable_keygen: bool,
}

#[derive(Clone, Copy)]
pub enum KeyRole {
    /// The account that vouches for the provider.
    Issuer,
    /// The provider itself.
    Subject,
}

impl KeyStore {
    /// The key that was given; else the stored one; else a new one, which is stored.
    pub fn load_or_generate(&self, role: KeyRole, binary: &Path) -> Result<KeyPair> {
        if let Some(given) = self.given(role) {
            return role.key_from_argument(given);
        }
        let path = self.folder()?.join(role.file_name(binary)?);
        match std::fs::read_to_string(&path) {
            Ok(seed) => role.key_from_seed(&seed, &path.display().to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => self.generate(role, &path),
            Err(error) => Err(error).with_context(|| format!("reading the key file {}", path.display())),
        }
    }

    /// A variable that is set but empty counts as not set, as in shells.
    fn given(&self, role: KeyRole) -> Option<&str> {
        let argument = match role {
            KeyRole::Issuer => &self.issuer,
            KeyRole::Subject => &self.subject,
        };
        argument.as_deref().filter(|value| !value.is_empty())
    }

    fn folder(&self) -> Result<PathBuf> {
        if let Some(folder) = self.directory.as_ref().filter(|folder| !folder.as_os_str().is_empty()) {
            return Ok(folder.clone());
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let home = home.context("no folder for keys: set WASH_KEYS (or --directory), or HOME")?;
        Ok(Path::new(&home).join(".wash/keys"))
    }

    fn generate(&self, role: KeyRole, path: &Path) -> Result<KeyPair> {
        if self.disable_keygen {
            bail!(
                "no key at {} and --disable-keygen is set; give {} or {}",
                path.display(),
                role.flag(),
                role.variable()
            );
        }
        // One that the host can read.
        let key = sdk_readable(|| KeyPair::new(role.kind()));
        store(&key, path).with_context(|| format!("keeping the new key in {}", path.display()))?;
        eprintln!("generated a new {} key: {}", role.noun(), path.display());
        Ok(key)
    }
}

impl KeyRole {
    fn kind(self) -> KeyPairType {
        match self {
            KeyRole::Issuer => KeyPairType::Account,
            KeyRole::Subject => KeyPairType::Service,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            KeyRole::Issuer => "account",
            KeyRole::Subject => "service",
        }
    }

    fn seed_prefix(self) -> &'static str {
        match self {
            KeyRole::Issuer => "SA",
            KeyRole::Subject => "SV",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            KeyRole::Issuer => "--issuer",
            KeyRole::Subject => "--subject",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            KeyRole::Issuer => "WASH_ISSUER_KEY",
            KeyRole::Subject => "WASH_SUBJECT_KEY",
        }
    }

    /// As wash names them: accounts after the user, providers after the binary.
    fn file_name(self, binary: &Path) -> Result<String> {
        let owner = match self {
            KeyRole::Issuer => std::env::var("USER").unwrap_or_else(|_| "user".to_string()),
            KeyRole::Subject => {
                let stem = binary.file_stem().context("--bin names no file")?;
                stem.to_string_lossy().into_owned()
            }
        };
        Ok(format!("{owner}_{}.nk", self.noun()))
    }

    fn key_from_argument(self, given: &str) -> Result<KeyPair> {
        let origin = format!("{} ({})", self.flag(), self.variable());
        match std::fs::read_to_string(given) {
            Ok(seed) => self.key_from_seed(&seed, &format!("the file given by {origin}")),
            Err(_) => self.key_from_seed(given, &origin).context("not a readable file either"),
        }
    }

    /// The cause is left out of the error on purpose: what was given may be a mistyped seed.
    fn key_from_seed(self, seed: &str, origin: &str) -> Result<KeyPair> {
        let seed = seed.trim();
        let key = KeyPair::from_seed(seed).map_err(|_| self.expectation(origin, "not a valid seed"))?;
        // nkeys does not compare the checksum, and a mistyped seed would silently be another key: written out again,
        // the key has the right one.
        if key.seed().map_or(true, |written| written != seed) {
            return Err(self.expectation(origin, "a seed whose checksum is wrong"));
        }
        if key.key_pair_type() != self.kind() {
            return Err(self.expectation(origin, "a seed of another kind"));
        }
        Ok(key)
    }

    fn expectation(self, origin: &str, found: &str) -> anyhow::Error {
        anyhow!(
            "{origin}: expected the seed of {} key (58 characters that start with {}), found {found}",
            match self {
                KeyRole::Issuer => "an account",
                KeyRole::Subject => "a service",
            },
            self.seed_prefix()
        )
    }
}

fn store(key: &KeyPair, path: &Path) -> Result<()> {
    let folder = path.parent().context("a key file lies in a folder")?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(SEED_FOLDER_MODE)
        .create(folder)?;
    // Two builds at once must not sign with different keys: only one of them creates the file.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(SEED_FILE_MODE)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(SEED_FILE_MODE))?;
    let seed = key.seed().map_err(|_| anyhow!("the generated key has no seed"))?;
    file.write_all(seed.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_store(directory: &Path) -> KeyStore {
        KeyStore {
            issuer: None,
            subject: None,
            directory: Some(directory.to_path_buf()),
            disable_keygen: false,
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_generated_key_is_kept_private_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let keys = key_store(&folder.path().join("new/keys"));
        let binary = Path::new("target/release/nats-kvcache");
        let first = keys.load_or_generate(KeyRole::Subject, binary).unwrap();
        let path = folder.path().join("new/keys/nats-kvcache_service.nk");
        assert_eq!(mode(&path), SEED_FILE_MODE);
        assert_eq!(mode(path.parent().unwrap()), SEED_FOLDER_MODE);
        let again = keys.load_or_generate(KeyRole::Subject, binary).unwrap();
        assert_eq!(first.public_key(), again.public_key());
        assert!(first.public_key().starts_with('V'));
    }

    #[test]
    fn a_seed_may_be_given_itself_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let account = sdk_readable(KeyPair::new_account);
        let seed = account.seed().unwrap();
        let file = folder.path().join("account.nk");
        std::fs::write(&file, format!("{seed}\n")).unwrap();
        for given in [seed, file.display().to_string()] {
            let keys = KeyStore {
                issuer: Some(given),
                ..key_store(folder.path())
            };
            let key = keys.load_or_generate(KeyRole::Issuer, Path::new("x")).unwrap();
            assert_eq!(key.public_key(), account.public_key());
        }
    }

    #[test]
    fn an_unusable_seed_is_named_but_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let service = KeyPair::new_service().seed().unwrap();
        let mistyped = "SAAJLQZDZO57THPTIIEELEY7FJYOJZQWQD7FF4J67TUYTSCOXTF7R4Y3AA";
        for bad in ["SAANOTASEEDATALL", service.as_str(), mistyped] {
            let keys = KeyStore {
                issuer: Some(bad.to_string()),
                ..key_store(folder.path())
            };
            let error = keys.load_or_generate(KeyRole::Issuer, Path::new("x")).err().unwrap();
            let text = format!("{error:#} {error:?}");
            assert!(text.contains("--issuer (WASH_ISSUER_KEY)"), "{text}");
            assert!(text.contains("start with SA"), "{text}");
            assert!(!text.contains(bad), "the seed is shown");
        }
    }

    #[test]
    fn keygen_can_be_forbidden() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyStore {
            disable_keygen: true,
            ..key_store(folder.path())
        };
        let error = keys.load_or_generate(KeyRole::Subject, Path::new("x")).err().unwrap();
        assert!(error.to_string().contains("x_service.nk"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
