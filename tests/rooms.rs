//! Which room may use which (docs/ARCHITECTURE.md, "Rooms and layers"). What is found is told as the edge that is one
//! too many.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "rooms/circles.rs"]
mod circles;

/// A crate, and what may not be among all that it is built of. A `*` at the end stands for any rest.
struct Room {
    package: &'static str,
    /// Rooms of this workspace that it may use.
    below: &'static [&'static str],
    never: &'static [&'static str],
}

const ROOMS: [Room; 8] = [
    Room {
        package: "kvcache-core",
        below: &[],
        never: &[
            "tokio*",
            "async-nats",
            "futures*",
            "serde_json",
            "wasmbus-*",
            "wasmcloud-*",
        ],
    },
    Room {
        package: "kvcache-node",
        below: &["kvcache-core"],
        never: &["wasmbus-*", "wasmcloud-*"],
    },
    Room {
        package: "kvcache-store-redis",
        below: &["kvcache-node", "kvcache-core"],
        never: &["wasmbus-*", "wasmcloud-*"],
    },
    Room {
        package: "kvcache-log",
        below: &["kvcache-node", "kvcache-core"],
        never: &["wasmbus-*", "wasmcloud-*"],
    },
    Room {
        package: "kvcache-store-cassandra",
        below: &["kvcache-node", "kvcache-core"],
        never: &["wasmbus-*", "wasmcloud-*"],
    },
    Room {
        package: "kvcache-store-consul",
        below: &["kvcache-node", "kvcache-core"],
        never: &["wasmbus-*", "wasmcloud-*"],
    },
    Room {
        package: "kvcache-allocator",
        below: &[],
        never: &["async-nats", "wasmbus-*", "wasmcloud-*"],
    },
    Room {
        package: "sim",
        below: &["kvcache-core"],
        never: &["tokio*", "async-nats", "wasmbus-*", "wasmcloud-*"],
    },
];

/// A folder, and the modules that its files may not name.
struct Layer {
    folder: &'static str,
    /// By what the paths of the modules begin with.
    roots: &'static [&'static str],
    modules: &'static [&'static str],
    /// Files that name one all the same, for now.
    except: &'static [&'static str],
}

const LAYERS: [Layer; 8] = [
    Layer {
        folder: "crates/core/src/cache",
        roots: &["crate", "super"],
        modules: &["codec", "durable", "wire", "replica"],
        except: &[],
    },
    Layer {
        folder: "crates/core/src/codec",
        roots: &["crate", "super"],
        modules: &["durable", "wire", "replica"],
        except: &[],
    },
    Layer {
        folder: "crates/core/src/durable",
        roots: &["crate", "super"],
        modules: &["codec", "wire", "replica"],
        except: &[],
    },
    Layer {
        folder: "crates/core/src/wire",
        roots: &["crate", "super"],
        modules: &["durable", "replica"],
        except: &[],
    },
    // Replication knows no stores.
    Layer {
        folder: "crates/core/src/replica",
        roots: &["crate", "super"],
        modules: &["durable"],
        except: &[],
    },
    // A front end sees the service and nothing below it.
    Layer {
        folder: "src",
        roots: &["kvcache_node"],
        modules: &["nats"],
        except: &[],
    },
    Layer {
        folder: "hosts/plugin-0-18/src",
        roots: &["kvcache_node"],
        modules: &["nats"],
        except: &[],
    },
    Layer {
        folder: "src",
        roots: &["kvcache_core"],
        modules: &["cache", "codec", "durable", "wire", "replica"],
        except: &[],
    },
];

#[test]
fn no_crate_is_built_of_what_its_room_leaves_to_others() {
    let found: Vec<String> = ROOMS
        .iter()
        .flat_map(|room| too_many(room, &tree_of(room.package)))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Hosts of other generations have locks of their own. What the host frees was not allocated by an allocator of ours.
#[test]
fn the_plugin_of_hosts_0_18_is_built_of_the_node_and_has_no_allocator() {
    let room = Room {
        package: "nats-kvcache-plugin",
        below: &["kvcache-log", "kvcache-node", "kvcache-core"],
        never: &[
            "wasmbus-*",
            "wasmcloud-interface-*",
            "kvcache-allocator",
            "mimalloc*",
            "libmimalloc*",
        ],
    };
    let tree = tree(&["--manifest-path", "hosts/plugin-0-18/Cargo.toml"]);
    let found = too_many(&room, &tree);
    assert!(found.is_empty(), "{}", found.join("\n"));
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("hosts/plugin-0-18/src")) {
        let text = fs::read_to_string(&path).expect("sources are text");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        assert!(
            !code.collect::<String>().contains("global_allocator"),
            "{} has one",
            path.display()
        );
    }
}

#[test]
fn no_module_names_one_above_it() {
    let found: Vec<String> = LAYERS.iter().flat_map(faults_of).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The core tells causes. Which setting has to do with one, only the node knows.
#[test]
fn the_core_names_no_setting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("crates/node/src/settings/table.rs")).expect("the table of settings");
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let rows = table.lines().filter_map(|line| line.trim_start().split_once(": "));
    let settings: Vec<&str> = rows.map(|(name, _)| name).filter(is_name).collect();
    assert!(
        settings.contains(&"FRAME_AUTH") && settings.contains(&"ACK"),
        "{settings:?}"
    );
    for path in sources(&root.join("crates/core/src")) {
        let text = fs::read_to_string(&path).expect("sources are text");
        let words = text.split(|part: char| !part.is_ascii_alphanumeric() && part != '_');
        let named: Vec<&str> = words.filter(|word| settings.contains(word)).collect();
        assert!(named.is_empty(), "{} names {named:?}", path.display());
    }
}

// --- crates

/// All that a package is built of, tests and build scripts apart: depth, name and version per line, each package below
/// the first one that uses it.
fn tree_of(package: &str) -> String {
    tree(&["--package", package])
}

fn tree(of: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments = [
        "tree",
        "--locked",
        "--offline",
        "--edges",
        "normal",
        "--prefix",
        "depth",
    ];
    let output = Command::new(cargo)
        .args(arguments)
        .args(of)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo is there: it runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("names are text")
}

/// The ways to what a room may not use, as `room -> package -> package`.
fn too_many(room: &Room, tree: &str) -> Vec<String> {
    let mut way: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in tree.lines() {
        let name = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let depth: usize = line[..line.len() - name.len()]
            .parse()
            .expect("a depth before each name");
        let name = name.split(' ').next().unwrap_or_default();
        way.truncate(depth);
        way.push(name);
        // Those of this workspace show where they lie.
        let is_ours = line.contains(" (/");
        let is_strange_room = depth > 0 && is_ours && !room.below.contains(&name);
        if is_strange_room || room.never.iter().any(|never| matches(never, name)) {
            found.push(way.join(" -> "));
        }
    }
    assert_eq!(way.first(), Some(&room.package), "a tree of another package:\n{tree}");
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

// --- modules

fn faults_of(layer: &Layer) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for path in sources(&root.join(layer.folder)) {
        let text = fs::read_to_string(&path).expect("sources are text");
        let file = path.strip_prefix(root).expect("below the root").display().to_string();
        let named = named_in(layer, &text);
        match layer.except.contains(&&*file) {
            true if named.is_empty() => found.push(format!("{file} need not be excepted any more")),
            true => {}
            false => found.extend(named.into_iter().map(|name| format!("{file} -> {name}"))),
        }
    }
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The forbidden modules that a source names, in comments too, by themselves or in a group of imports.
fn named_in(layer: &Layer, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in layer.roots {
        let root = format!("{root}::");
        for (at, _) in text.match_indices(&root) {
            let rest = &text[at + root.len()..];
            for module in layer.modules {
                if firsts(rest).iter().any(|first| first == module) {
                    found.push(format!("{root}{module}"));
                }
            }
        }
    }
    found
}

/// The first names of a path, of which it has several if it is a group.
fn firsts(path: &str) -> Vec<&str> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut firsts = vec![word(group.trim_start())];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => firsts.push(word(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    firsts
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

// --- that all this can fail

#[test]
fn a_crate_too_many_is_found_at_any_depth() {
    let room = Room {
        package: "kvcache-node",
        below: &["kvcache-core"],
        never: &["wasmbus-*", "serde_json"],
    };
    let tree = "0kvcache-node v0.1.0 (/here/crates/node)\n\
                1async-nats v0.51.0\n\
                2serde_json v1.0.1\n\
                3serde v1.0.1 (*)\n\
                2serde_json_path v1.0.1\n\
                1kvcache-core v0.1.0 (/here/crates/core)\n\
                2wasmbus-rpc v0.15.0\n\
                1nats-kvcache v0.1.0 (/here)\n\
                1tokio-macros v2.0.0 (proc-macro)\n";
    assert_eq!(
        too_many(&room, tree),
        [
            "kvcache-node -> async-nats -> serde_json",
            "kvcache-node -> kvcache-core -> wasmbus-rpc",
            "kvcache-node -> nats-kvcache",
        ]
    );
}

#[test]
fn a_module_above_is_found_however_it_is_named() {
    let [cache, codec, _, wire, _, front_end, _, front_end_and_core] = &LAYERS;
    for (layer, text, expected) in [
        (cache, "use crate::wire::{Frame, Message};", Some("crate::wire")),
        (
            cache,
            "use crate::{\n    cache::Key,\n    replica::Now,\n};",
            Some("crate::replica"),
        ),
        (cache, "use super::super::wire::VERSION;", Some("super::wire")),
        (cache, "use crate::cache::{wire, replica};", None),
        (cache, "use crate::{cache::{wire}, cache::replica};", None),
        (cache, "use crate::wires::Wire;", None),
        (cache, "use crate::codec::Encoder;", Some("crate::codec")),
        (codec, "use crate::wire::Frame;", Some("crate::wire")),
        (codec, "use crate::cache::Delta;", None),
        (wire, "use crate::replica::Now;", Some("crate::replica")),
        (wire, "use crate::wire::Frame;", None),
        (
            front_end,
            "kvcache_node::nats::connect(url)",
            Some("kvcache_node::nats"),
        ),
        (front_end, "use kvcache_node::{time, nats};", Some("kvcache_node::nats")),
        (front_end, "use kvcache_node::time;", None),
        (
            front_end_and_core,
            "use kvcache_core::cache::Key;",
            Some("kvcache_core::cache"),
        ),
    ] {
        let expected: Vec<&str> = expected.into_iter().collect();
        assert_eq!(named_in(layer, text), expected, "{text}");
    }
}
