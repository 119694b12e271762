//! What each operation answers, row by row, without a host in between.

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use crate::plugin_or_skip;

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_the_contract_says() -> Result<()> {
    let Some(mut plugin) = plugin_or_skip()? else {
        return Ok(());
    };
    plugin.bind("system", &[]).await?;
    let set = |key: &str, value: &str| ("Set", json!({ "key": key, "value": value, "expires": 0 }));
    let add = |value: i32| ("Add", json!({ "key": "count", "value": value }));
    let range = |start: i32, stop: i32| ("Range", json!({ "key": "list", "start": start, "stop": stop }));
    let of_key = |op: &'static str, key: &str| (op, json!({ "key": key }));
    let item = |op: &'static str, key: &str, value: &str| (op, json!({ "key": key, "value": value }));
    let sets = |op: &'static str, keys: &[&str]| (op, json!({ "keys": keys }));
    let none = json!({ "exists": false, "value": "" });
    let values = |values: &[&str]| json!({ "values": values });
    let rows: Vec<((&str, Value), Value)> = vec![
        (of_key("Get", "a"), none.clone()),
        (of_key("KeyExists", "a"), none.clone()),
        (set("a", "1"), json!({ "value": "1" })),
        (of_key("Get", "a"), json!({ "exists": true, "value": "1" })),
        (of_key("KeyExists", "a"), json!({ "exists": true, "value": "" })),
        (of_key("Del", "a"), json!({ "key": "a" })),
        (of_key("Del", "a"), json!({ "key": "a" })),
        (of_key("Get", "a"), none.clone()),
        (add(5), json!({ "value": 5 })),
        (add(-7), json!({ "value": -2 })),
        (of_key("Get", "count"), json!({ "exists": true, "value": "-2" })),
        (of_key("Clear", "count"), json!({ "key": "count" })),
        (add(1), json!({ "value": 1 })),
        (range(0, -1), values(&[])),
        (item("Push", "list", "x"), json!({ "newCount": 1 })),
        (item("Push", "list", "y"), json!({ "newCount": 2 })),
        (item("Push", "list", "x"), json!({ "newCount": 3 })),
        (range(0, -1), values(&["x", "y", "x"])),
        (range(0, 1), values(&["x", "y"])),
        (range(i32::MIN, i32::MAX), values(&["x", "y", "x"])),
        (range(2, 1), values(&[])),
        (item("ListItemDelete", "list", "x"), json!({ "newCount": 1 })),
        (range(0, -1), values(&["y", "x"])),
        (item("ListItemDelete", "list", "z"), json!({ "newCount": 0 })),
        (item("SetAdd", "s", "b"), json!({ "new_count": 1 })),
        (item("SetAdd", "s", "b"), json!({ "new_count": 0 })),
        (item("SetAdd", "s", "a"), json!({ "new_count": 1 })),
        (item("SetAdd", "t", "b"), json!({ "new_count": 1 })),
        (of_key("SetQuery", "s"), values(&["a", "b"])),
        (of_key("SetQuery", "none"), values(&[])),
        (sets("SetUnion", &["s", "t", "none"]), values(&["a", "b"])),
        (sets("SetIntersection", &["s", "t"]), values(&["b"])),
        (sets("SetIntersection", &["s", "none"]), values(&[])),
        (item("SetRemove", "t", "b"), json!({ "new_count": 1 })),
        (item("SetRemove", "t", "b"), json!({ "new_count": 0 })),
        (of_key("KeyExists", "t"), none.clone()),
        // A value of another type is replaced, which the classic cache does not do and says it did.
        (set("s", "text"), json!({ "value": "text" })),
        (of_key("Get", "s"), json!({ "exists": true, "value": "text" })),
        (set("", "\u{0} *>.$\n"), json!({ "value": "\u{0} *>.$\n" })),
        (of_key("Get", ""), json!({ "exists": true, "value": "\u{0} *>.$\n" })),
    ];
    for (number, ((op, args), expected)) in rows.into_iter().enumerate() {
        let answer = plugin.call(op, args.clone()).await;
        let answer = answer.with_context(|| format!("row {number}: {op} {args}"))?;
        ensure!(
            answer == expected,
            "row {number}: {op} {args}: {answer} instead of {expected}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_an_error_and_changes_nothing() -> Result<()> {
    let Some(mut plugin) = plugin_or_skip()? else {
        return Ok(());
    };
    plugin.bind("system", &[("MAX_VALUE_BYTES", "1000")]).await?;
    plugin
        .call("Set", json!({ "key": "text", "value": "t", "expires": 0 }))
        .await?;
    plugin
        .call(
            "Set",
            json!({ "key": "most", "value": i32::MAX.to_string(), "expires": 0 }),
        )
        .await?;
    plugin.call("Push", json!({ "key": "list", "value": "x" })).await?;
    for (op, args, part) in [
        ("Get", json!({ "key": "list" }), "WRONGTYPE"),
        ("Add", json!({ "key": "list", "value": 1 }), "WRONGTYPE"),
        ("Add", json!({ "key": "text", "value": 1 }), "not an integer"),
        ("Add", json!({ "key": "most", "value": 1 }), "2147483647"),
        ("Push", json!({ "key": "text", "value": "x" }), "WRONGTYPE"),
        ("SetAdd", json!({ "key": "list", "value": "x" }), "WRONGTYPE"),
        ("SetUnion", json!({ "keys": ["none", "text"] }), "WRONGTYPE"),
        ("SetIntersection", json!({ "keys": [] }), "at least one set"),
        ("Set", json!({ "key": "k", "value": "v", "expires": -1 }), "expires"),
        (
            "Set",
            json!({ "key": "k", "value": "v".repeat(2_000), "expires": 0 }),
            "MAX_VALUE_BYTES",
        ),
        ("Set", json!({ "key": "k" }), "value"),
        ("Add", json!({ "key": "k", "value": 1_u64 << 40 }), "AddArgs"),
        ("Get", json!("k"), "GetArgs"),
        (
            "Increment",
            json!({ "key": "k", "value": 1 }),
            "none of wasmcloud:keyvalue",
        ),
    ] {
        let error = plugin
            .refused(json!({ "actor": "system", "op": op, "args": args }))
            .await?;
        ensure!(error.contains(part), "{op} {args}: {error}");
    }
    let health = plugin.call("HealthRequest", json!({ "placeholder": true })).await?;
    ensure!(
        health["message"].as_str().is_some_and(|text| text.contains("keys=3 ")),
        "{health}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_expires() -> Result<()> {
    let Some(mut plugin) = plugin_or_skip()? else {
        return Ok(());
    };
    plugin.bind("system", &[]).await?;
    plugin
        .call("Set", json!({ "key": "k", "value": "v", "expires": 1 }))
        .await?;
    let deadline = std::time::Instant::now() + crate::LIMIT;
    while plugin.call("Get", json!({ "key": "k" })).await?["exists"] == true {
        ensure!(std::time::Instant::now() < deadline, "it stays");
    }
    Ok(())
}

/// Bytes that no host would send.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_an_error() -> Result<()> {
    let Some(mut plugin) = plugin_or_skip()? else {
        return Ok(());
    };
    let texts: [&[u8]; 8] = [
        b"",
        b"\xc1",
        b"\x81",
        b"\x81\xa3key",
        b"\x81\xa3key\xdb\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa4keys\xdd\xff\xff\xff\xff",
        b"\x81\xa3key\xa1\xff",
    ];
    for is_bound in [false, true] {
        for op in ["BindActor", "RemoveActor", "Get", "Set", "Add", "SetUnion", "Range"] {
            for bytes in texts {
                let command = json!({ "actor": "system", "op": op, "bytes": bytes });
                let error = plugin.refused(command).await?;
                ensure!(!error.contains("has a fault"), "{op} {bytes:?}: {error}");
            }
        }
        if !is_bound {
            plugin.bind("system", &[]).await?;
        }
    }
    // Of a field that nobody knows: arrays in arrays.
    let deep = [&b"\x82\xa1x"[..], &vec![0x91; 200_000], b"\xc0\xa3key\xa1k"].concat();
    let error = plugin
        .refused(json!({ "actor": "system", "op": "Get", "bytes": deep }))
        .await?;
    ensure!(error.contains("GetArgs"), "{error}");
    // A length that is a lie takes no memory.
    let peak = plugin.peak_bytes()?;
    ensure!(peak < 256 << 20, "{peak} bytes");
    plugin
        .call("Set", json!({ "key": "k", "value": "v", "expires": 0 }))
        .await?;
    Ok(())
}
