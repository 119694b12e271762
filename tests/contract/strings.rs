//! Get, Contains, Del and Set.

use anyhow::Result;
use serde_json::json;
use wasmbus_rpc::common::{deserialize, serialize};
use wasmcloud_interface_keyvalue::{GetResponse, SetRequest};

use crate::suite::{Kind, Kv};

pub async fn get_and_contains_see_what_was_set(kv: Kv) -> Result<()> {
    let missing: GetResponse = deserialize(
        &kv.transport()
            .call_raw("KeyValue.Get", &serialize(&"strings/missing")?)
            .await?,
    )?;
    assert_eq!(
        missing,
        GetResponse {
            exists: false,
            value: String::new()
        }
    );
    assert!(!kv.contains("strings/missing").await?);

    kv.set("strings/present", "value").await?;
    assert_eq!(kv.get("strings/present").await?.as_deref(), Some("value"));
    kv.set("strings/empty", "").await?;
    assert_eq!(
        kv.get("strings/empty").await?.as_deref(),
        Some(""),
        "an empty value exists"
    );

    for kind in Kind::ALL {
        let key = format!("strings/contains/{kind:?}");
        assert!(!kv.contains(&key).await?, "{kind:?} before it is made");
        kind.create(&kv, &key).await?;
        assert!(kv.contains(&key).await?, "any type counts: {kind:?}");
        assert!(kv.del(&key).await?);
        assert!(!kv.contains(&key).await?, "deleted {kind:?}");
    }
    kv.list_add("strings/contains/emptied list", "x").await?;
    assert!(kv.list_del("strings/contains/emptied list", "x").await?);
    assert!(!kv.contains("strings/contains/emptied list").await?);
    kv.set_add("strings/contains/emptied set", "x").await?;
    assert_eq!(kv.set_del("strings/contains/emptied set", "x").await?, 1);
    assert!(!kv.contains("strings/contains/emptied set").await?);
    Ok(())
}

pub async fn del_is_true_once_for_any_type(kv: Kv) -> Result<()> {
    assert!(!kv.del("strings/del/missing").await?);
    for kind in Kind::ALL {
        let key = format!("strings/del/{kind:?}");
        kind.create(&kv, &key).await?;
        assert!(kv.del(&key).await?, "{kind:?}");
        assert!(!kv.del(&key).await?, "{kind:?} again");
        assert_eq!(kv.get(&key).await?, None, "{kind:?}");
        assert!(kv.list(&key).await?.is_empty(), "{kind:?}");
        assert!(kv.set_query(&key).await?.is_empty(), "{kind:?}");
    }
    Ok(())
}

pub async fn set_replaces_any_type(kv: Kv) -> Result<()> {
    for kind in Kind::ALL {
        let key = format!("strings/replace/{kind:?}");
        kind.create(&kv, &key).await?;
        kv.set(&key, "new").await?;
        assert_eq!(kv.get(&key).await?.as_deref(), Some("new"), "{kind:?}");
    }
    Ok(())
}

pub async fn set_answers_with_an_empty_body(kv: Kv) -> Result<()> {
    let request = SetRequest {
        key: "strings/unit".to_owned(),
        value: "x".to_owned(),
        expires: 0,
    };
    let answer = kv.transport().call_raw("KeyValue.Set", &serialize(&request)?).await?;
    assert!(answer.is_empty(), "the reply of Set is an empty body, not {answer:?}");
    Ok(())
}

pub async fn set_requests_come_in_several_shapes(kv: Kv) -> Result<()> {
    let shapes = [
        (
            "a map without expires",
            json!({ "key": "strings/shape", "value": "a map without expires" }),
        ),
        (
            "a map in another order",
            json!({ "value": "a map in another order", "expires": 0, "key": "strings/shape" }),
        ),
        (
            "unknown extra fields",
            json!({ "key": "strings/shape", "value": "unknown extra fields", "ttl": [1, { "x": null }], "zz": "y" }),
        ),
        ("an array", json!(["strings/shape", "an array", 0])),
        (
            "an array without expires",
            json!(["strings/shape", "an array without expires"]),
        ),
    ];
    for (value, shape) in shapes {
        let answer = kv.transport().call_raw("KeyValue.Set", &serialize(&shape)?).await;
        assert!(answer.is_ok(), "{value}: {answer:?}");
        assert_eq!(kv.get("strings/shape").await?.as_deref(), Some(value));
    }
    Ok(())
}
