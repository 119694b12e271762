//! Operations on a key of another type.

use anyhow::Result;

use crate::suite::{assert_wrong_type, Kind, Kv};

/// Every operation that wants a type, with the type it wants.
const OPERATIONS: [(&str, Kind); 9] = [
    ("Get", Kind::Text),
    ("Increment", Kind::Text),
    ("ListAdd", Kind::List),
    ("ListRange", Kind::List),
    ("ListDel", Kind::List),
    ("SetAdd", Kind::Set),
    ("SetDel", Kind::Set),
    ("SetQuery", Kind::Set),
    ("SetUnion", Kind::Set),
];

pub async fn operations_on_a_key_of_another_type_are_refused(kv: Kv) -> Result<()> {
    for kind in Kind::ALL {
        let key = format!("types/{kind:?}");
        kind.create(&kv, &key).await?;
        for (operation, wanted) in OPERATIONS {
            let what = format!("{operation} on a {kind:?}");
            let (value, refused_value) = ("7", "8");
            let answer = match operation {
                "Get" => kv.get(&key).await.map(drop),
                "Increment" => kv.increment(&key, 0).await.map(drop),
                "ListAdd" if kind == wanted => continue,
                "ListAdd" => kv.list_add(&key, refused_value).await.map(drop),
                "ListRange" => kv.list_range(&key, 0, -1).await.map(drop),
                "ListDel" if kind == wanted => kv.list_del(&key, refused_value).await.map(drop),
                "ListDel" => kv.list_del(&key, value).await.map(drop),
                "SetAdd" => kv.set_add(&key, value).await.map(drop),
                "SetDel" if kind == wanted => kv.set_del(&key, refused_value).await.map(drop),
                "SetDel" => kv.set_del(&key, value).await.map(drop),
                "SetQuery" => kv.set_query(&key).await.map(drop),
                _ => kv.set_union(&[&key]).await.map(drop),
            };
            if kind == wanted {
                assert!(answer.is_ok(), "{what}: {answer:?}");
            } else {
                assert_wrong_type(answer, &what);
            }
            kind.assert_untouched(&kv, &key, &what).await?;
        }
    }
    Ok(())
}
