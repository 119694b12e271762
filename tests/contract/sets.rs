//! SetAdd, SetDel, SetQuery, SetUnion, SetIntersection and SetClear.

use anyhow::Result;
use wasmbus_rpc::common::serialize;

use crate::suite::{assert_wrong_type, Kind, Kv};

pub async fn set_add_and_del_count_changes(kv: Kv) -> Result<()> {
    let set = "sets/add";
    assert_eq!(kv.set_del(set, "a").await?, 0, "of a missing set");
    assert_eq!(kv.set_add(set, "a").await?, 1);
    assert_eq!(kv.set_add(set, "a").await?, 0, "again");
    assert_eq!(kv.set_add(set, "").await?, 1, "the empty string is a valid member");
    assert_eq!(kv.set_query(set).await?, ["", "a"]);
    assert_eq!(kv.set_del(set, "x").await?, 0);
    assert_eq!(kv.set_del(set, "a").await?, 1);
    assert_eq!(kv.set_del(set, "a").await?, 0, "again");
    assert!(kv.contains(set).await?);
    assert_eq!(kv.set_del(set, "").await?, 1);
    assert!(!kv.contains(set).await?, "the last removal removes the key");
    assert_eq!(kv.list_add(set, "now a list").await?, 1, "an emptied set has no type");
    Ok(())
}

pub async fn set_query_is_sorted(kv: Kv) -> Result<()> {
    let set = "sets/query";
    assert!(kv.set_query("sets/missing").await?.is_empty());
    for member in ["b", "ä", "a", "B", "10", "9", "aa"] {
        kv.set_add(set, member).await?;
    }
    assert_eq!(kv.set_query(set).await?, ["10", "9", "B", "a", "aa", "b", "ä"]);
    Ok(())
}

pub async fn union_and_intersection(kv: Kv) -> Result<()> {
    let sets = [("sets/abc", "abc"), ("sets/bcd", "bcd"), ("sets/x", "x")];
    for (set, members) in sets {
        for member in members.chars() {
            kv.set_add(set, &member.to_string()).await?;
        }
    }
    for (keys, union, intersection) in [
        (vec!["sets/abc"], "abc", "abc"),
        (vec!["sets/abc", "sets/abc"], "abc", "abc"),
        (vec!["sets/abc", "sets/bcd"], "abcd", "bc"),
        (vec!["sets/bcd", "sets/abc"], "abcd", "bc"),
        (vec!["sets/abc", "sets/bcd", "sets/x"], "abcdx", ""),
        (vec!["sets/none"], "", ""),
        (vec!["sets/abc", "sets/none"], "abc", ""),
        (vec!["sets/none", "sets/abc"], "abc", ""),
        (vec!["sets/none", "sets/none too"], "", ""),
    ] {
        let mut all = kv.set_union(&keys).await?;
        all.sort();
        assert_eq!(all.concat(), union, "union of {keys:?}");
        let mut common = kv.set_intersection(&keys).await?;
        common.sort();
        assert_eq!(common.concat(), intersection, "intersection of {keys:?}");
    }
    assert_eq!(
        kv.set_query("sets/abc").await?,
        ["a", "b", "c"],
        "the inputs are left alone"
    );
    assert!(!kv.contains("sets/none").await?, "reading makes no key");
    Ok(())
}

pub async fn union_and_intersection_of_nothing_is_an_error(kv: Kv) -> Result<()> {
    for method in ["KeyValue.SetUnion", "KeyValue.SetIntersection"] {
        let answer = kv
            .transport()
            .call_raw(method, &serialize(&Vec::<String>::new())?)
            .await;
        assert!(answer.is_err(), "{method} of no key: {answer:?}");
    }
    Ok(())
}

pub async fn union_and_intersection_refuse_other_types(kv: Kv) -> Result<()> {
    kv.set_add("sets/other/set", "a").await?;
    for kind in [Kind::Text, Kind::List] {
        let key = format!("sets/other/{kind:?}");
        kind.create(&kv, &key).await?;
        for keys in [
            vec![key.as_str()],
            vec!["sets/other/set", &key],
            vec![&key, "sets/other/set"],
            vec!["sets/other/missing", &key],
            vec![&key, "sets/other/missing"],
            vec!["sets/other/missing", "sets/other/set", &key],
        ] {
            assert_wrong_type(kv.set_union(&keys).await, &format!("union of {keys:?}"));
            assert_wrong_type(kv.set_intersection(&keys).await, &format!("intersection of {keys:?}"));
        }
        kind.assert_untouched(&kv, &key, "after the refused calls").await?;
    }
    Ok(())
}

pub async fn set_clear_deletes_any_type(kv: Kv) -> Result<()> {
    assert!(!kv.set_clear("sets/clear/missing").await?);
    for kind in Kind::ALL {
        let key = format!("sets/clear/{kind:?}");
        kind.create(&kv, &key).await?;
        assert!(kv.set_clear(&key).await?, "{kind:?}");
        assert!(!kv.contains(&key).await?, "{kind:?}");
        assert!(!kv.set_clear(&key).await?, "{kind:?} again");
        assert_eq!(kv.set_add(&key, "new").await?, 1, "{kind:?}");
        assert_eq!(
            kv.set_query(&key).await?,
            ["new"],
            "nothing of the old {kind:?} comes back"
        );
    }
    Ok(())
}
