//! Where things lie in the checkout, and the book of skipped tests.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{anyhow, ensure, Context, Result};

/// The root of the workspace this kit was compiled in.
pub fn workspace_root() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates
        .and_then(Path::parent)
        .expect("the kit lies two folders below the workspace root")
        .to_path_buf()
}

/// A program on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// A program that `scripts/install-tools.sh` has installed, if it has; else one on `PATH`.
pub(crate) fn installed_or_on_path(tool: &str, name: &str) -> Option<PathBuf> {
    let installed = workspace_root().join(".tools").join(tool).join("bin").join(name);
    if installed.is_file() {
        return Some(installed);
    }
    on_path(name)
}

/// As [`installed_or_on_path`]. The error tells what installs it.
pub(crate) fn find_program(tool: &str, name: &str) -> Result<PathBuf> {
    installed_or_on_path(tool, name).ok_or_else(|| {
        anyhow!("no {name} found (.tools/{tool}, PATH); install it with: scripts/install-tools.sh {tool}")
    })
}

/// The library that moves the wall clock of one process, if it is there.
pub fn faketime_library() -> Option<PathBuf> {
    let library = workspace_root().join(".tools/libfaketime/lib/libfaketimeMT.so.1");
    library.exists().then_some(library)
}

/// Cargo as it is called from a shell. What it tells a test about its package would make build scripts run again.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (variable, _) in std::env::vars_os() {
        let about_package = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if about_package
            .iter()
            .any(|prefix| variable.to_string_lossy().starts_with(prefix))
        {
            command.env_remove(variable);
        }
    }
    command
}

/// Builds the development tool, and returns its path: it is made beside `binary`, which the same workspace was built to.
/// With `--workspace`, as `make test` builds, so that nothing is compiled a second time with other features.
pub fn xtask_beside(binary: &Path) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--locked", "--workspace", "--bin", "xtask"]);
    let output = command.current_dir(workspace_root()).output().context("cargo build")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    let built = binary.with_file_name("xtask");
    ensure!(built.is_file(), "cargo built no {}", built.display());
    Ok(built)
}

/// Skips the test that calls this, for the machine lacks something: loudly, and counted by `make test` at its end. Each
/// test has a thread of its own, which has its name.
///
/// # Panics
/// In CI (environment variable `CI` set), where a missing server is a failure.
pub fn skip_test(reason: &str) {
    let thread = std::thread::current();
    let test_name = thread.name().unwrap_or("a test");
    if std::env::var_os("CI").is_some() {
        panic!("{test_name}: {reason}");
    }
    eprintln!("\n*** SKIPPED {test_name}: {reason}\n");
    let book = workspace_root().join("target").join("skipped-tests.txt");
    let noted = std::fs::create_dir_all(book.parent().expect("a file in target/"))
        .and_then(|()| std::fs::OpenOptions::new().create(true).append(true).open(&book))
        .and_then(|mut file| file.write_all(format!("{test_name}: {reason}\n").as_bytes()));
    if let Err(error) = noted {
        eprintln!("*** could not note the skipped test in {}: {error}", book.display());
    }
}
