//! Requests that are not as they should be, and health.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use testkit::{Status, SyncState};
use wasmbus_rpc::common::{deserialize, serialize};
use wasmbus_rpc::core::{HealthCheckRequest, HealthCheckResponse};

use crate::suite::{assert_refused, Kv};

/// Every method with the type of its argument as the interface names it.
const METHODS: [(&str, &str); 15] = [
    ("Increment", "IncrementRequest"),
    ("Contains", "String"),
    ("Del", "String"),
    ("Get", "String"),
    ("ListAdd", "ListAddRequest"),
    ("ListClear", "String"),
    ("ListDel", "ListDelRequest"),
    ("ListRange", "ListRangeRequest"),
    ("Set", "SetRequest"),
    ("SetAdd", "SetAddRequest"),
    ("SetDel", "SetDelRequest"),
    ("SetIntersection", "StringList"),
    ("SetQuery", "String"),
    ("SetUnion", "StringList"),
    ("SetClear", "String"),
];

pub async fn unknown_methods_are_named(kv: Kv) -> Result<()> {
    for method in ["KeyValue.Nope", "KeyValue.get", "Other.Get", "Nope", "KeyValue."] {
        let name = method.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let answer = kv.transport().call_raw(method, &serialize(&"key")?).await;
        assert_refused(answer, name, &format!("method {method:?}"));
    }
    assert!(kv.transport().call_raw("", &[]).await.is_err());
    assert_alive(&kv).await
}

pub async fn undecodable_arguments_are_named(kv: Kv) -> Result<()> {
    let arguments: [(&str, Vec<u8>); 9] = [
        ("nothing", vec![]),
        ("a reserved byte", vec![0xc1]),
        ("nil", vec![0xc0]),
        ("a number", serialize(&7)?),
        ("true", serialize(&true)?),
        ("a text cut short", vec![0xd9, 0xff, b'x']),
        (
            "a text of four gigabytes, cut short",
            vec![0xdb, 0xff, 0xff, 0xff, 0xff, b'x'],
        ),
        (
            "an array of four billion items, cut short",
            vec![0xdd, 0xff, 0xff, 0xff, 0xff, 0xa1, b'x'],
        ),
        ("a text that is not UTF-8", vec![0xa2, 0xff, 0xfe]),
    ];
    for (method, argument_type) in METHODS {
        for (what, argument) in &arguments {
            let answer = kv.transport().call_raw(&format!("KeyValue.{method}"), argument).await;
            let text = assert_refused(answer, "", &format!("{method} with {what}"));
            let named = text.contains(argument_type) || text.contains(method);
            assert!(
                named,
                "{method} with {what}: {text:?} names neither the method nor {argument_type}"
            );
        }
    }
    let wrong_shapes = [
        ("Increment", json!({ "key": 5, "value": 1 })),
        ("Increment", json!({ "key": "requests/x", "value": "1" })),
        ("Set", json!({ "key": "requests/x", "value": 5 })),
        ("Set", json!({ "key": "requests/x", "value": null })),
        ("ListAdd", json!({ "listName": ["requests/x"], "value": "a" })),
        ("SetUnion", json!({ "keys": ["requests/x"] })),
        ("SetUnion", json!("requests/x")),
        ("SetIntersection", json!(["requests/x", 5])),
        ("Get", json!({ "key": "requests/x" })),
        ("Del", json!(["requests/x"])),
    ];
    for (method, argument) in wrong_shapes {
        let answer = kv
            .transport()
            .call_raw(&format!("KeyValue.{method}"), &serialize(&argument)?)
            .await;
        assert!(answer.is_err(), "{method} with {argument}: {answer:?}");
    }
    assert!(!kv.contains("requests/x").await?, "a refused request changes nothing");
    assert_alive(&kv).await
}

pub async fn numbers_out_of_range_are_refused(kv: Kv) -> Result<()> {
    for (method, argument) in [
        (
            "Increment",
            json!({ "key": "requests/range", "value": 2_147_483_648_i64 }),
        ),
        (
            "Increment",
            json!({ "key": "requests/range", "value": -2_147_483_649_i64 }),
        ),
        ("Increment", json!({ "key": "requests/range", "value": 1.5 })),
        ("Set", json!({ "key": "requests/range", "value": "x", "expires": -1 })),
        (
            "Set",
            json!({ "key": "requests/range", "value": "x", "expires": 4_294_967_296_i64 }),
        ),
        (
            "ListRange",
            json!({ "listName": "requests/range", "start": 2_147_483_648_i64, "stop": 0 }),
        ),
        (
            "ListRange",
            json!({ "listName": "requests/range", "start": 0, "stop": -2_147_483_649_i64 }),
        ),
    ] {
        let answer = kv
            .transport()
            .call_raw(&format!("KeyValue.{method}"), &serialize(&argument)?)
            .await;
        assert_refused(answer, method, &format!("{method} with {argument}"));
    }
    assert!(!kv.contains("requests/range").await?);
    Ok(())
}

/// The types of the contract's crate would take an empty text or 0 instead, and write the key "".
pub async fn missing_and_misspelt_fields_are_refused_and_named(kv: Kv) -> Result<()> {
    let key = "requests/missing";
    for (method, argument, missing) in [
        ("Set", json!({ "value": "x" }), "key"),
        ("Set", json!({ "Key": key, "value": "x" }), "key"),
        ("Set", json!({ "key": key, "val": "x" }), "value"),
        ("Set", json!({}), "key"),
        ("Set", json!([key]), "SetRequest"),
        ("Set", json!([]), "SetRequest"),
        ("Increment", json!({ "value": 1 }), "key"),
        ("Increment", json!({ "key": key }), "value"),
        ("ListAdd", json!({ "list_name": key, "value": "x" }), "listName"),
        ("ListAdd", json!({ "listName": key }), "value"),
        ("ListDel", json!({ "listname": key, "value": "x" }), "listName"),
        ("ListRange", json!({ "listName": key, "start": 0 }), "stop"),
        ("ListRange", json!({ "start": 0, "stop": 1 }), "listName"),
        ("SetAdd", json!({ "set_name": key, "value": "x" }), "setName"),
        ("SetAdd", json!({ "setName": key }), "value"),
        ("SetDel", json!({ "value": "x" }), "setName"),
    ] {
        let what = format!("{method} with {argument}");
        let answer = kv
            .transport()
            .call_raw(&format!("KeyValue.{method}"), &serialize(&argument)?)
            .await;
        let text = assert_refused(answer, missing, &what);
        assert!(text.contains(method), "{what}: {text:?} does not name the request");
    }
    assert!(!kv.contains(key).await?, "a refused request changes nothing");
    Ok(())
}

pub async fn unknown_fields_and_array_encoding_are_accepted(kv: Kv) -> Result<()> {
    let shapes = |method: &str, fields: &[(&str, serde_json::Value)]| {
        let map: serde_json::Map<_, _> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let mut extended = map.clone();
        extended.insert("unknown".to_owned(), json!({ "deep": [1, 2, { "x": "y" }] }));
        let array: Vec<_> = fields.iter().map(|(_, value)| value.clone()).collect();
        [
            ("map", json!(map)),
            ("map with unknown fields", json!(extended)),
            ("array", json!(array)),
        ]
        .map(|(shape, argument)| (format!("{method} as {shape}"), format!("KeyValue.{method}"), argument))
    };
    let (key, list, set) = ("requests/shape", "requests/shape list", "requests/shape set");
    for (what, method, argument) in shapes("Increment", &[("key", json!(key)), ("value", json!(2))]) {
        let before = kv.get(key).await?.map_or(0, |text| text.parse().expect("a number"));
        assert_eq!(call::<i32>(&kv, &method, &argument, &what).await?, before + 2, "{what}");
    }
    for (what, method, argument) in shapes("ListAdd", &[("listName", json!(list)), ("value", json!("a"))]) {
        let before = kv.list(list).await?.len() as u32;
        assert_eq!(call::<u32>(&kv, &method, &argument, &what).await?, before + 1, "{what}");
    }
    for (what, method, argument) in shapes(
        "ListRange",
        &[("listName", json!(list)), ("start", json!(1)), ("stop", json!(-1))],
    ) {
        assert_eq!(
            call::<Vec<String>>(&kv, &method, &argument, &what).await?,
            ["a", "a"],
            "{what}"
        );
    }
    for (what, method, argument) in shapes("ListDel", &[("listName", json!(list)), ("value", json!("a"))]) {
        assert!(call::<bool>(&kv, &method, &argument, &what).await?, "{what}");
    }
    for (what, method, argument) in shapes("SetAdd", &[("setName", json!(set)), ("value", json!("a"))]) {
        kv.set_clear(set).await?;
        assert_eq!(call::<u32>(&kv, &method, &argument, &what).await?, 1, "{what}");
    }
    for (what, method, argument) in shapes("SetDel", &[("setName", json!(set)), ("value", json!("a"))]) {
        kv.set_add(set, "a").await?;
        assert_eq!(call::<u32>(&kv, &method, &argument, &what).await?, 1, "{what}");
    }
    Ok(())
}

pub async fn health_has_a_message_in_parts(kv: Kv) -> Result<()> {
    kv.set("requests/health", "x").await?;
    let provider = kv.transport().provider();
    let data = &provider.host_data;
    let topic = format!(
        "wasmbus.rpc.{}.{}.{}.health",
        data.lattice_rpc_prefix, data.provider_key, data.link_name
    );
    let health: HealthCheckResponse = provider.send_ctl_json(&topic, HealthCheckRequest {}).await?;
    assert!(health.healthy, "{health:?}");
    let status: Status = health.message.expect("a message").parse()?;
    assert!(status.keys >= 1, "{status:?}");
    assert_eq!(
        (status.peers, status.sync),
        (0, SyncState::Alone),
        "the only node of its lattice: {status:?}"
    );
    Ok(())
}

async fn call<T: serde::de::DeserializeOwned>(
    kv: &Kv,
    method: &str,
    argument: &impl Serialize,
    what: &str,
) -> Result<T> {
    let answer = kv.transport().call_raw(method, &serialize(argument)?).await;
    Ok(deserialize(&answer.unwrap_or_else(|error| panic!("{what}: {error}")))?)
}

async fn assert_alive(kv: &Kv) -> Result<()> {
    kv.set("requests/alive", "yes").await?;
    assert_eq!(kv.get("requests/alive").await?.as_deref(), Some("yes"));
    Ok(())
}
