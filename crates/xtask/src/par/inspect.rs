//! `par inspect`: the claims of an archive, after its signature and hashes were checked.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::{json, Value};

use super::archive::VerifiedArchive;

#[derive(Args)]
pub struct Inspect {
    /// The archive
    path: PathBuf,
    /// Print JSON, with the field names of `wash par inspect --output json`
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub async fn run(self) -> Result<()> {
        let (archive, _) = VerifiedArchive::read_file(&self.path).await?;
        if self.json {
            println!("{:#}", as_json(&archive));
        } else {
            print!("{}", as_table(&archive));
        }
        Ok(())
    }
}

fn as_json(archive: &VerifiedArchive) -> Value {
    let provider = archive.provider();
    json!({
        "name": provider.name,
        "issuer": archive.claims.issuer,
        "service": archive.claims.subject,
        "capability_contract_id": provider.capid,
        "vendor": provider.vendor,
        "version": provider.ver,
        "revision": provider.rev,
        "targets": archive.targets,
    })
}

fn as_table(archive: &VerifiedArchive) -> String {
    let provider = archive.provider();
    let revision = provider.rev.map(|revision| revision.to_string());
    let rows = [
        ("Name", provider.name.clone()),
        ("Account", Some(archive.claims.issuer.clone())),
        ("Service", Some(archive.claims.subject.clone())),
        ("Capability Contract ID", Some(provider.capid.clone())),
        ("Vendor", Some(provider.vendor.clone())),
        ("Version", provider.ver.clone()),
        ("Revision", revision),
        ("Supported Architectures", Some(archive.targets.join(", "))),
        ("Signature", Some("valid".to_string())),
    ];
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let line = |(label, value): &(&str, Option<String>)| {
        format!("{label:width$}  {}\n", value.as_deref().unwrap_or("-").escape_debug())
    };
    rows.iter().map(line).collect()
}
