//! What keys and values may look like, and how large they may be.

use anyhow::Result;

use crate::suite::Kv;

const MEBIBYTE: usize = 1024 * 1024;

pub async fn keys_and_values_are_any_text(kv: Kv) -> Result<()> {
    let texts = [
        "",
        " ",
        "\0",
        "a\0b",
        "\n",
        "line\nbreak\r\n",
        "\t",
        "*",
        ">",
        ".",
        "..",
        "a.b.>",
        "$SYS.REQ",
        "$KV.x",
        "/",
        "\\",
        "\"'`",
        "%s %n",
        "key:with:colons",
        "{hash}tag",
        "ключ",
        "鍵",
        "🔑",
        "\u{feff}bom",
        "e\u{301}",
        "é",
        "\u{10ffff}",
    ];
    for text in texts {
        // One key per type, and once the bare text itself.
        let [value_key, list_key, set_key] = ["s", "l", "m"].map(|kind| format!("names/{kind}/{text}"));
        kv.set(&value_key, text).await?;
        assert_eq!(
            kv.get(&value_key).await?.as_deref(),
            Some(text),
            "value of {value_key:?}"
        );
        assert_eq!(kv.list_add(&list_key, text).await?, 1, "{list_key:?}");
        assert_eq!(kv.list(&list_key).await?, [text], "list {list_key:?}");
        assert_eq!(kv.set_add(&set_key, text).await?, 1, "{set_key:?}");
        assert_eq!(kv.set_query(&set_key).await?, [text], "set {set_key:?}");
        assert!(
            kv.list_del(&list_key, text).await? && kv.set_del(&set_key, text).await? == 1,
            "{text:?}"
        );
    }
    for text in texts {
        kv.set(text, &format!("value of {text:?}")).await?;
    }
    for text in texts {
        assert_eq!(
            kv.get(text).await?,
            Some(format!("value of {text:?}")),
            "keys are not folded together"
        );
    }
    for text in texts {
        assert!(kv.del(text).await?, "{text:?}");
        assert!(!kv.contains(text).await?, "{text:?}");
    }
    Ok(())
}

pub async fn long_keys(kv: Kv) -> Result<()> {
    for length in [255, 256, 1000, 4096, 20_000] {
        let [one, other] = ["a", "b"].map(|end| format!("names/{}{end}", "k".repeat(length)));
        kv.set(&one, "one").await?;
        kv.increment(&other, 2).await?;
        assert_eq!(kv.get(&one).await?.as_deref(), Some("one"), "key of {length} bytes");
        assert_eq!(kv.get(&other).await?.as_deref(), Some("2"), "key of {length} bytes");
        assert!(kv.del(&one).await?);
    }
    Ok(())
}

pub async fn values_of_several_mebibytes(kv: Kv) -> Result<()> {
    // Around the 900 KiB at which the SDK begins to cut, around 1 MiB, the usual limit of a message, and far above.
    for size in [
        900 * 1024 - 100,
        900 * 1024 + 100,
        MEBIBYTE,
        MEBIBYTE + 1,
        3 * MEBIBYTE,
        8 * MEBIBYTE,
    ] {
        let value = text_of(size);
        kv.set("names/large", &value).await?;
        assert!(
            kv.get("names/large").await?.as_deref() == Some(&value),
            "value of {size} bytes"
        );
    }
    let item = text_of(2 * MEBIBYTE);
    assert_eq!(kv.list_add("names/large list", &item).await?, 1);
    assert_eq!(kv.list_add("names/large list", "small").await?, 2);
    assert!(kv.list("names/large list").await? == [item.as_str(), "small"]);
    assert!(kv.list_del("names/large list", &item).await?);
    assert_eq!(kv.set_add("names/large set", &item).await?, 1);
    assert_eq!(kv.set_add("names/large set", &item).await?, 0);
    assert!(kv.set_query("names/large set").await? == [item]);
    for key in ["names/large", "names/large list", "names/large set"] {
        assert!(kv.del(key).await?);
    }
    Ok(())
}

pub async fn answers_of_several_mebibytes(kv: Kv) -> Result<()> {
    let items: Vec<String> = (0..40).map(|item| format!("{item}:{}", text_of(100 * 1024))).collect();
    for item in &items {
        kv.list_add("names/many", item).await?;
        kv.set_add("names/many members", item).await?;
    }
    assert!(
        kv.list("names/many").await? == items,
        "a range of 4 MiB made of items that fit a message each"
    );
    let mut sorted = items.clone();
    sorted.sort();
    assert!(kv.set_query("names/many members").await? == sorted);
    assert!(kv.del("names/many").await? && kv.del("names/many members").await?);
    Ok(())
}

/// Text that does not compress and in which a lost or swapped piece shows.
fn text_of(size: usize) -> String {
    let mut text = String::with_capacity(size + 16);
    while text.len() < size {
        text.push_str(&format!("{:08x}", text.len().wrapping_mul(0x9e37_79b9)));
    }
    text.truncate(size);
    text
}
