//! Values with a deadline.

use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use testkit::eventually;

use crate::suite::Kv;

/// How long after its deadline a value may still be seen by a call that was under way.
const SLACK: Duration = Duration::from_millis(250);
const LIMIT: Duration = Duration::from_secs(10);

pub async fn a_value_expires_to_the_second(kv: Kv) -> Result<()> {
    let asked = Instant::now();
    kv.set_for("expiry/second", "x", 2).await?;
    let answered = Instant::now();
    loop {
        let reading = Instant::now();
        let value = kv.get("expiry/second").await?;
        let read = Instant::now();
        if read < asked + Duration::from_secs(2) {
            assert_eq!(
                value.as_deref(),
                Some("x"),
                "gone {:?} after the call, two seconds were asked",
                read - asked
            );
        } else if reading > answered + Duration::from_secs(2) + SLACK {
            assert_eq!(value, None, "still there {:?} after the answer", reading - answered);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn a_later_set_replaces_the_deadline(kv: Kv) -> Result<()> {
    kv.set_for("expiry/kept", "x", 1).await?;
    kv.set("expiry/kept", "y").await?;
    kv.set_for("expiry/longer", "x", 1).await?;
    kv.set_for("expiry/longer", "y", 1000).await?;
    kv.set("expiry/shorter", "x").await?;
    kv.set_for("expiry/shorter", "y", 1).await?;
    kv.set_for("expiry/deleted", "x", 1).await?;
    kv.del("expiry/deleted").await?;
    kv.increment("expiry/deleted", 5).await?;
    wait_until_gone(&kv, "expiry/shorter").await?;
    assert_eq!(
        kv.get("expiry/kept").await?.as_deref(),
        Some("y"),
        "a Set without expiry removes the deadline"
    );
    assert_eq!(kv.get("expiry/longer").await?.as_deref(), Some("y"));
    assert_eq!(
        kv.get("expiry/deleted").await?.as_deref(),
        Some("5"),
        "a deadline ends with its value"
    );
    Ok(())
}

pub async fn increment_keeps_the_deadline(kv: Kv) -> Result<()> {
    kv.set_for("expiry/counter", "5", 2).await?;
    assert_eq!(kv.increment("expiry/counter", 2).await?, 7);
    wait_until_gone(&kv, "expiry/counter").await?;
    assert_eq!(
        kv.increment("expiry/counter", 2).await?,
        2,
        "after the deadline it counts from 0"
    );
    Ok(())
}

pub async fn an_expired_key_is_gone_for_every_operation(kv: Kv) -> Result<()> {
    let key = |name: &str| format!("expiry/gone/{name}");
    let names = [
        "get",
        "del",
        "list_add",
        "list",
        "list_del",
        "list_clear",
        "set_add",
        "set",
        "set_del",
        "set_clear",
        "union",
    ];
    for name in names {
        kv.set_for(&key(name), "x", 1).await?;
    }
    // The youngest of them is gone last.
    kv.set_for("expiry/gone/last", "x", 1).await?;
    wait_until_gone(&kv, "expiry/gone/last").await?;
    assert_eq!(kv.get(&key("get")).await?, None);
    assert!(!kv.del(&key("del")).await?);
    assert_eq!(kv.list_add(&key("list_add"), "item").await?, 1);
    assert!(kv.list(&key("list")).await?.is_empty());
    assert!(!kv.list_del(&key("list_del"), "x").await?);
    assert!(!kv.list_clear(&key("list_clear")).await?);
    assert_eq!(kv.set_add(&key("set_add"), "member").await?, 1);
    assert!(kv.set_query(&key("set")).await?.is_empty());
    assert_eq!(kv.set_del(&key("set_del"), "x").await?, 0);
    assert!(!kv.set_clear(&key("set_clear")).await?);
    assert!(kv.set_union(&[&key("union")]).await?.is_empty());
    assert!(kv.set_intersection(&[&key("union")]).await?.is_empty());
    Ok(())
}

pub async fn a_far_deadline_is_no_overflow(kv: Kv) -> Result<()> {
    for seconds in [u32::MAX, i32::MAX as u32, i32::MAX as u32 + 1] {
        kv.set_for("expiry/far", "x", seconds).await?;
        assert_eq!(kv.get("expiry/far").await?.as_deref(), Some("x"), "{seconds} seconds");
    }
    Ok(())
}

async fn wait_until_gone(kv: &Kv, key: &str) -> Result<()> {
    eventually(LIMIT, || async {
        if kv.contains(key).await? {
            bail!("{key} is still there");
        }
        Ok(())
    })
    .await
}
