//! The table of settings in the documentation is the one that is read.

use std::fs;
use std::path::Path;

use kvcache_node::settings::markdown;

const BEGIN: &str = "<!-- settings: begin -->\n";
const END: &str = "<!-- settings: end -->\n";

#[test]
fn the_documented_settings_are_those_that_are_read() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIGURATION.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("a mark where the table begins");
    let (documented, after) = rest.split_once(END).expect("a mark where the table ends");
    // Blank lines keep the table apart from the marks, which are HTML.
    let table = format!("\n{}\n", markdown());
    if std::env::var_os("BLESS").is_some() {
        fs::write(&file, [before, BEGIN, &table, END, after].concat()).unwrap();
        return;
    }
    assert!(
        documented == table,
        "the table in docs/CONFIGURATION.md is not that of the settings; BLESS=1 writes it:\n{table}"
    );
}
