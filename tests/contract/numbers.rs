//! Increment.

use anyhow::Result;

use crate::suite::{assert_refused, Kv};

pub async fn increment_counts_from_zero_and_returns_the_new_value(kv: Kv) -> Result<()> {
    let key = "numbers/count";
    for (by, expected) in [(5, 5), (0, 5), (-7, -2), (2, 0), (i32::MAX, i32::MAX), (i32::MIN, -1)] {
        assert_eq!(kv.increment(key, by).await?, expected, "increment by {by}");
        assert_eq!(
            kv.get(key).await?,
            Some(expected.to_string()),
            "after an increment by {by}"
        );
    }
    assert_eq!(kv.increment("numbers/zero", 0).await?, 0);
    assert_eq!(
        kv.get("numbers/zero").await?.as_deref(),
        Some("0"),
        "an increment by 0 makes the key"
    );

    kv.set(key, "41").await?;
    assert_eq!(kv.increment(key, 1).await?, 42, "on a value that was set");
    assert!(kv.del(key).await?);
    assert_eq!(kv.increment(key, 3).await?, 3, "a deleted key counts from 0");
    Ok(())
}

pub async fn only_canonical_integers_can_be_incremented(kv: Kv) -> Result<()> {
    let refused = [
        "",
        " ",
        "x",
        "+5",
        "007",
        "00",
        "-0",
        "-",
        "--1",
        "-01",
        " 12",
        "12 ",
        "12\n",
        "3.5",
        "1e3",
        "0x10",
        "1_000",
        "1,000",
        "\u{661}",
        "NaN",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999",
    ];
    let key = "numbers/refused";
    for text in refused {
        kv.set(key, text).await?;
        let what = format!("increment of {text:?}");
        assert_refused(
            kv.increment(key, 1).await,
            "value is not an integer or out of range",
            &what,
        );
        assert_refused(
            kv.increment(key, 0).await,
            "value is not an integer or out of range",
            &what,
        );
        assert_eq!(
            kv.get(key).await?.as_deref(),
            Some(text),
            "unchanged after the refused {what}"
        );
    }
    for (text, by, expected) in [
        ("0", 1, 1),
        ("-1", 1, 0),
        ("10", -20, -10),
        ("100", 0, 100),
        ("2147483646", 1, i32::MAX),
        ("-2147483647", -1, i32::MIN),
        ("2147483648", -1, i32::MAX),
        ("-2147483650", 2, i32::MIN),
    ] {
        kv.set("numbers/accepted", text).await?;
        let sum = kv.increment("numbers/accepted", by).await;
        assert_eq!(sum.as_ref().ok(), Some(&expected), "{text} increased by {by}: {sum:?}");
    }
    Ok(())
}

pub async fn a_result_outside_i32_is_an_error_that_names_the_limit(kv: Kv) -> Result<()> {
    let key = "numbers/limit";
    for (text, by, limit) in [
        ("2147483647", 1, "2147483647"),
        ("1", i32::MAX, "2147483647"),
        ("2147483648", 0, "2147483647"),
        ("9223372036854775807", 1, "2147483647"),
        ("9223372036854775807", i32::MAX, "2147483647"),
        ("-2147483648", -1, "-2147483648"),
        ("-1", i32::MIN, "-2147483648"),
        ("-9223372036854775808", -1, "-2147483648"),
        ("-9223372036854775808", i32::MIN, "-2147483648"),
    ] {
        kv.set(key, text).await?;
        assert_refused(kv.increment(key, by).await, limit, &format!("{text} increased by {by}"));
        assert_eq!(
            kv.get(key).await?.as_deref(),
            Some(text),
            "unchanged after the refused increment by {by}"
        );
    }
    kv.del(key).await?;
    assert_eq!(kv.increment(key, i32::MAX).await?, i32::MAX);
    assert_refused(kv.increment(key, 1).await, "2147483647", "a counter at the limit");
    assert_eq!(
        kv.increment(key, -1).await?,
        i32::MAX - 1,
        "and it goes on from where it was"
    );
    Ok(())
}

pub async fn get_reads_any_i64(kv: Kv) -> Result<()> {
    for text in ["9223372036854775807", "-9223372036854775808", "2147483648"] {
        kv.set("numbers/i64", text).await?;
        assert_eq!(kv.get("numbers/i64").await?.as_deref(), Some(text));
    }
    Ok(())
}
