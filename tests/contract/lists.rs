//! ListAdd, ListRange, ListDel and ListClear.

use anyhow::Result;

use crate::suite::{Kind, Kv};

pub async fn list_add_returns_the_new_length(kv: Kv) -> Result<()> {
    let list = "lists/add";
    for (position, item) in ["b", "a", "", "b"].into_iter().enumerate() {
        assert_eq!(kv.list_add(list, item).await? as usize, position + 1, "adding {item:?}");
    }
    assert_eq!(
        kv.list(list).await?,
        ["b", "a", "", "b"],
        "in the order of the additions, repetitions kept"
    );
    Ok(())
}

pub async fn list_range_is_inclusive_and_clipped(kv: Kv) -> Result<()> {
    let list = "lists/range";
    for item in ["a", "b", "c", "d", "e"] {
        kv.list_add(list, item).await?;
    }
    let (min, max) = (i32::MIN, i32::MAX);
    for (start, stop, expected) in [
        (0, -1, "abcde"),
        (0, 0, "a"),
        (1, 3, "bcd"),
        (4, 4, "e"),
        (0, 4, "abcde"),
        (0, 5, "abcde"),
        (-2, -1, "de"),
        (-5, -5, "a"),
        (-6, -5, "a"),
        (-6, -6, ""),
        (-100, 100, "abcde"),
        (2, -2, "cd"),
        (-3, 3, "cd"),
        (3, 1, ""),
        (-1, -2, ""),
        (5, 5, ""),
        (5, 10, ""),
        (min, max, "abcde"),
        (min, -1, "abcde"),
        (0, max, "abcde"),
        (4, max, "e"),
        (min, 0, "a"),
        (max, max, ""),
        (min, min, ""),
        (0, min, ""),
        (max, min, ""),
        (-1, max, "e"),
    ] {
        let range = kv.list_range(list, start, stop).await?.concat();
        assert_eq!(range, expected, "{start}..{stop} of a list of five");
        assert!(
            kv.list_range("lists/missing", start, stop).await?.is_empty(),
            "{start}..{stop} of a missing list"
        );
    }
    assert!(!kv.contains("lists/missing").await?, "reading makes no key");
    Ok(())
}

pub async fn list_del_removes_the_first_equal_item(kv: Kv) -> Result<()> {
    let list = "lists/del";
    assert!(!kv.list_del(list, "a").await?, "of a missing list");
    for item in ["a", "b", "a", "c", "a"] {
        kv.list_add(list, item).await?;
    }
    assert!(!kv.list_del(list, "x").await?);
    assert!(kv.list_del(list, "a").await?);
    assert_eq!(kv.list(list).await?, ["b", "a", "c", "a"], "only the first");
    assert_eq!(kv.list_add(list, "d").await?, 5, "the length counts what is left");
    for (item, left) in [("a", "bcad"), ("a", "bcd"), ("c", "bd"), ("b", "d")] {
        assert!(kv.list_del(list, item).await?, "{item}");
        assert_eq!(kv.list(list).await?.concat(), left);
    }
    assert!(kv.contains(list).await?);
    assert!(kv.list_del(list, "d").await?);
    assert!(!kv.contains(list).await?, "the last removal removes the key");
    assert!(!kv.del(list).await?);
    assert_eq!(kv.set_add(list, "now a set").await?, 1, "an emptied list has no type");
    Ok(())
}

pub async fn list_clear_deletes_any_type(kv: Kv) -> Result<()> {
    assert!(!kv.list_clear("lists/clear/missing").await?);
    for kind in Kind::ALL {
        let key = format!("lists/clear/{kind:?}");
        kind.create(&kv, &key).await?;
        assert!(kv.list_clear(&key).await?, "{kind:?}");
        assert!(!kv.contains(&key).await?, "{kind:?}");
        assert!(!kv.list_clear(&key).await?, "{kind:?} again");
        assert_eq!(
            kv.list_add(&key, "new").await?,
            1,
            "nothing of the old {kind:?} comes back"
        );
    }
    Ok(())
}
