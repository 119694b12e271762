//! The table of settings in docs/CONFIGURATION.md.

use super::table::{Scope, SETTINGS};

/// All settings as a table in Markdown.
pub fn markdown() -> String {
    let mut table = String::from("| name | where | values | default | meaning |\n| --- | --- | --- | --- | --- |\n");
    for setting in SETTINGS {
        let place = match setting.scope() {
            Scope::Host => "`config_json`",
            Scope::Lattice => "environment of a host 0.18",
            Scope::Process => "both",
            Scope::EachLink => "both, per link",
            Scope::OneLink => "link",
        };
        let (name, values, default, meaning) = (setting.name(), setting.values(), setting.default(), setting.meaning());
        table += &format!("| `{name}` | {place} | {values} | {default} | {meaning} |\n");
    }
    table
}
