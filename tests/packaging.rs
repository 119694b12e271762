//! The provider archive, from the built binary to a real OCI registry and back, by the tool that `make par` uses and by
//! the real `wash`.

#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use anyhow::{anyhow, ensure, Context, Result};
use provider_archive::ProviderArchive;
use serde_json::Value;
use testkit::{xtask_beside, OciRegistry, Wash};

const PROVIDER: &str = env!("CARGO_BIN_EXE_nats-kvcache");
const VENDOR: &str = "packaging test";
const VERSION: &str = "1.2.3-test";
const REVISION: i32 = 42;

// ------------------------------------------------------------------ the archive

#[tokio::test]
async fn the_archive_carries_the_claims_and_the_binary() -> Result<()> {
    let sample = sample()?;
    let archive = ProviderArchive::try_load(&std::fs::read(&sample.archive)?)
        .await
        .map_err(|error| anyhow!("{error}"))?;
    let claims = archive.claims().context("claims")?;
    let provider = claims.metadata.context("metadata")?;
    assert_eq!(provider.capid, "wasmcloud:keyvalue");
    assert_eq!(provider.vendor, VENDOR);
    assert_eq!(provider.ver.as_deref(), Some(VERSION));
    assert_eq!(provider.rev, Some(REVISION));
    assert!(claims.issuer.starts_with('A'), "an account signs: {}", claims.issuer);
    assert!(
        claims.subject.starts_with('V'),
        "a service is signed: {}",
        claims.subject
    );

    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    assert_eq!(archive.targets(), std::slice::from_ref(&target));
    let library = archive.target_bytes(&target).context("library of this machine")?;
    assert!(
        library == std::fs::read(PROVIDER)?,
        "the library is not the built binary"
    );
    Ok(())
}

#[test]
fn inspect_shows_what_the_archive_claims() -> Result<()> {
    let sample = sample()?;
    let table = succeeds(xtask()?.args(["par", "inspect", path_text(&sample.archive)]))?;
    for (label, value) in [
        ("Capability Contract ID", "wasmcloud:keyvalue"),
        ("Vendor", VENDOR),
        ("Version", VERSION),
        ("Revision", "42"),
        ("Signature", "valid"),
    ] {
        let row = table.lines().find(|line| line.starts_with(label)).context(label)?;
        assert_eq!(row[label.len()..].trim(), value);
    }
    let claims = inspect(&sample.archive)?;
    assert_eq!(claims["revision"], REVISION);
    for key in ["issuer", "service"] {
        let public = claims[key].as_str().context(key)?;
        assert!(table.contains(public), "{key} is missing in the table");
        assert!(sample.created.contains(public), "{key} was not told by par create");
    }
    Ok(())
}

#[test]
fn archives_signed_with_the_same_keys_are_the_same_provider() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let binary = small_binary(folder.path())?;
    let mut claims = Vec::new();
    for name in ["first.par.gz", "second.par"] {
        let out = folder.path().join(name);
        succeeds(&mut create(&folder.path().join("keys"), &binary, &out)?)?;
        claims.push(inspect(&out)?);
    }
    assert_eq!(claims[0]["service"], claims[1]["service"]);
    assert_eq!(claims[0]["issuer"], claims[1]["issuer"]);
    Ok(())
}

// ------------------------------------------------------------------ the registry

#[tokio::test]
async fn the_archive_survives_a_registry() -> Result<()> {
    let Some(registry) = OciRegistry::start_or_skip("").await? else {
        return Ok(());
    };
    let sample = sample()?;
    let folder = tempfile::tempdir()?;
    let reference = registry.reference("nats-kvcache:0.1.0");
    let pulled = folder.path().join("new/pulled.par.gz");
    let (archive, out) = (path_text(&sample.archive), path_text(&pulled));
    succeeds(xtask()?.args(["par", "push", "--file", archive, "--ref", &reference]))?;
    succeeds(xtask()?.args(["par", "pull", "--out", out, "--ref", &reference]))?;
    assert!(
        std::fs::read(&sample.archive)? == std::fs::read(&pulled)?,
        "the bytes changed"
    );
    assert_eq!(inspect(&sample.archive)?, inspect(&pulled)?);
    let left = std::fs::read_dir(folder.path().join("new"))?.count();
    assert_eq!(left, 1, "something lies beside the archive");

    let missing = registry.reference("nats-kvcache:9.9.9");
    let pull = ["par", "pull", "--out", out, "--ref", &missing];
    fails(xtask()?.args(pull), &["pulling --ref", "9.9.9"])?;
    Ok(())
}

#[tokio::test]
async fn a_login_is_used_and_never_shown() -> Result<()> {
    let users = tempfile::NamedTempFile::new()?;
    // bcrypt of "correct horse"
    std::fs::write(
        users.path(),
        "tester:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n",
    )?;
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {:?}}}}}", users.path());
    let Some(registry) = OciRegistry::start_or_skip(&auth).await? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let archive = small_archive(folder.path())?;
    let reference = registry.reference("nats-kvcache:0.1.0");
    let push = || -> Result<Command> {
        let mut command = xtask()?;
        command.args(["par", "push", "--file", path_text(&archive), "--ref", &reference]);
        Ok(command)
    };
    fails(&mut push()?, &["pushing to --ref", &reference])?;
    let wrong = ["--user", "tester", "--password", "wrong battery"];
    let said = fails(push()?.args(wrong), &["pushing to --ref"])?;
    assert!(!said.contains("wrong battery"), "the password is shown: {said}");
    succeeds(push()?.envs([("WASH_REG_USER", "tester"), ("WASH_REG_PASSWORD", "correct horse")]))?;
    Ok(())
}

// ------------------------------------------------------------------ the real wash

/// What `make par` and `make push` do with a `wash` on PATH, but for the build of a release.
#[tokio::test]
async fn wash_and_our_tool_make_and_move_the_same_archive() -> Result<()> {
    let Some(wash) = Wash::find_or_skip()? else {
        return Ok(());
    };
    let Some(registry) = OciRegistry::start_or_skip("").await? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let binary = small_binary(folder.path())?;
    let archive = folder.path().join("new/by-wash.par.gz");
    let reference = registry.reference("nats-kvcache:1.2.3");
    let revision = REVISION.to_string();
    let variables = [
        ("BINARY", path_text(&binary)),
        ("PAR", path_text(&archive)),
        ("OCI_REF", &reference),
        ("VENDOR", VENDOR),
        ("VERSION", VERSION),
        ("REVISION", &revision),
    ];

    makes(&mut wash.make("archive", &variables), "+ wash par create")?;
    let claims = inspect(&archive)?;
    assert_eq!(claims["vendor"], VENDOR);
    assert_eq!(claims["version"], VERSION);
    assert_eq!(claims["revision"], REVISION);
    assert_eq!(claims_by_wash(&wash, &archive)?, with_revision_as_text(claims));

    makes(&mut wash.make("push", &variables), "+ wash push")?;
    let by_wash = folder.path().join("pulled-by-wash.par.gz");
    let by_us = folder.path().join("pulled-by-us.par.gz");
    let pull = ["pull", &reference, "--insecure", "--destination", path_text(&by_wash)];
    succeeds(wash.command().args(pull))?;
    succeeds(xtask()?.args(["par", "pull", "--ref", &reference, "--out", path_text(&by_us)]))?;
    let bytes = std::fs::read(&archive)?;
    assert!(bytes == std::fs::read(&by_wash)?, "wash pulls other bytes");
    assert!(bytes == std::fs::read(&by_us)?, "we pull other bytes");
    Ok(())
}

/// The other way round: what hosts and operators do with what this repository's tool has packed and pushed.
#[tokio::test]
async fn wash_reads_and_pulls_what_our_tool_has_made() -> Result<()> {
    let Some(wash) = Wash::find_or_skip()? else {
        return Ok(());
    };
    let Some(registry) = OciRegistry::start_or_skip("").await? else {
        return Ok(());
    };
    let sample = sample()?;
    let claims = inspect(&sample.archive)?;
    assert_eq!(claims_by_wash(&wash, &sample.archive)?, with_revision_as_text(claims));

    let folder = tempfile::tempdir()?;
    let (archive, pulled) = (&sample.archive, folder.path().join("pulled.par.gz"));
    let reference = registry.reference("nats-kvcache:1.2.3");
    succeeds(xtask()?.args(["par", "push", "--file", path_text(archive), "--ref", &reference]))?;
    let pull = ["pull", &reference, "--insecure", "--destination", path_text(&pulled)];
    succeeds(wash.command().args(pull))?;
    assert!(std::fs::read(archive)? == std::fs::read(&pulled)?, "the bytes changed");
    Ok(())
}

/// Runs make, and sees in the lines that it echoes that it took the branch of `wash`.
fn makes(command: &mut Command, echoed: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = everything_said(&output)?;
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    ensure!(said.contains(echoed), "{command:?} does not say {echoed:?}:\n{said}");
    Ok(())
}

fn claims_by_wash(wash: &Wash, archive: &Path) -> Result<Value> {
    let inspect = ["par", "inspect", "--no-cache", "--output", "json", path_text(archive)];
    let json = succeeds(wash.command().args(inspect))?;
    let mut claims: Value = serde_json::from_str(&json).with_context(|| json.clone())?;
    let fields = claims.as_object_mut().context("an object")?;
    assert_eq!(fields.remove("success"), Some(Value::Bool(true)));
    Ok(claims)
}

/// As `wash` prints it.
fn with_revision_as_text(mut claims: Value) -> Value {
    claims["revision"] = claims["revision"].to_string().into();
    claims
}

// ------------------------------------------------------------------ what cannot work

#[test]
fn unusable_arguments_are_explained() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys");
    let binary = small_binary(folder.path())?;
    let out = folder.path().join("a.par.gz");
    let new = || create(&keys, &binary, &out);

    let missing = folder.path().join("no-such-binary");
    fails(
        &mut create(&keys, &missing, &out)?,
        &["--bin", "no-such-binary", "make build"],
    )?;
    fails(
        &mut create(&keys, &binary, Path::new("a.zip"))?,
        &["--out a.zip", ".par.gz"],
    )?;
    fails(new()?.args(["--revision", "-1"]), &["--revision"])?;
    fails(new()?.args(["--revision", "many"]), &["--revision", "many"])?;
    fails(new()?.arg("--disable-keygen"), &["--disable-keygen", "WASH_ISSUER_KEY"])?;
    let inspect = |path| -> Result<Command> {
        let mut command = xtask()?;
        command.args(["par", "inspect", path]);
        Ok(command)
    };
    fails(&mut inspect("no-such.par")?, &["no-such.par", "provider archive"])?;
    fails(&mut inspect(path_text(&binary))?, &["not a provider archive"])?;
    let push = ["par", "push", "--file", path_text(&binary), "--ref", "localhost:1/a:1"];
    fails(xtask()?.args(push), &["--file", "not a provider archive"])?;
    assert!(!out.exists(), "a failed command left an archive");
    Ok(())
}

#[test]
fn an_unusable_seed_is_not_echoed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let binary = small_binary(folder.path())?;
    // The checksum in the last characters is wrong: a mistyped seed is still a secret.
    let seed = "SAAJLQZDZO57THPTIIEELEY7FJYOJZQWQD7FF4J67TUYTSCOXTF7R4Y3AA";
    let command = || create(folder.path(), &binary, &folder.path().join("a.par.gz"));
    let mut by_flag = command()?;
    by_flag.args(["--issuer", seed]);
    let mut by_variable = command()?;
    by_variable.env("WASH_ISSUER_KEY", seed);
    for command in [&mut by_flag, &mut by_variable] {
        let output = command.output()?;
        let said = everything_said(&output)?;
        assert!(!output.status.success());
        assert!(!said.contains(&seed[..12]), "the seed is shown: {said}");
        for expected in ["--issuer (WASH_ISSUER_KEY)", "account", "SA"] {
            assert!(said.contains(expected), "{expected} is missing: {said}");
        }
    }
    Ok(())
}

#[test]
fn a_registry_that_is_not_there_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = small_archive(folder.path())?;
    // Nobody listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let reference = format!("127.0.0.1:{port}/nats-kvcache:0.1.0");
    let push = ["par", "push", "--file", path_text(&archive), "--ref", &reference];
    fails(xtask()?.args(push), &[&reference, "onnection refused"])?;
    Ok(())
}

// ------------------------------------------------------------------ helpers

/// One archive around the real binary, made once: an unoptimised provider takes seconds to compress.
struct Sample {
    archive: PathBuf,
    /// What `par create` printed.
    created: String,
}

fn sample() -> Result<&'static Sample> {
    static SAMPLE: OnceLock<Result<Sample, String>> = OnceLock::new();
    let made = SAMPLE.get_or_init(|| make_sample().map_err(|error| format!("{error:#}")));
    made.as_ref().map_err(|error| anyhow!("{error}"))
}

fn make_sample() -> Result<Sample> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packaging");
    let archive = folder.join("sample.par.gz");
    let mut command = create(&folder.join("keys"), Path::new(PROVIDER), &archive)?;
    command.args(["--vendor", VENDOR, "--version", VERSION]);
    let created = succeeds(command.args(["--revision", &REVISION.to_string()]))?;
    Ok(Sample { archive, created })
}

fn small_archive(folder: &Path) -> Result<PathBuf> {
    let archive = folder.join("small.par.gz");
    succeeds(&mut create(folder, &small_binary(folder)?, &archive)?)?;
    Ok(archive)
}

fn small_binary(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("provider");
    std::fs::write(&path, "a small stand-in for a provider binary")?;
    Ok(path)
}

fn create(keys: &Path, binary: &Path, out: &Path) -> Result<Command> {
    let mut command = xtask()?;
    command.env("WASH_KEYS", keys).args(["par", "create"]);
    command.arg("--bin").arg(binary).arg("--out").arg(out);
    Ok(command)
}

fn inspect(archive: &Path) -> Result<Value> {
    let json = succeeds(xtask()?.args(["par", "inspect", "--json", path_text(archive)]))?;
    Ok(serde_json::from_str(&json)?)
}

/// The tool, built once per run, in an environment without the developer's own keys and logins.
fn xtask() -> Result<Command> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let binary = BUILT.get_or_init(|| xtask_beside(Path::new(PROVIDER)).map_err(|error| format!("{error:#}")));
    let mut command = Command::new(binary.as_ref().map_err(|error| anyhow!("{error}"))?);
    for variable in [
        "WASH_ISSUER_KEY",
        "WASH_SUBJECT_KEY",
        "WASH_KEYS",
        "WASH_REG_USER",
        "WASH_REG_PASSWORD",
    ] {
        command.env_remove(variable);
    }
    command.current_dir(env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null());
    Ok(command)
}

fn succeeds(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = everything_said(&output)?;
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Everything the command said; every one of `expected` has to be in it.
fn fails(command: &mut Command, expected: &[&str]) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = everything_said(&output)?;
    ensure!(!output.status.success(), "{command:?} succeeded:\n{said}");
    ensure!(!said.contains("panicked"), "{command:?} panicked:\n{said}");
    for text in expected {
        ensure!(said.contains(text), "{command:?} does not say {text:?}:\n{said}");
    }
    Ok(said)
}

fn everything_said(output: &Output) -> Result<String> {
    Ok(String::from_utf8([&output.stdout[..], &output.stderr[..]].concat())?)
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("test folders have plain names")
}
