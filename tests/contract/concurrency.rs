//! Many callers at once.

use std::future::Future;

use anyhow::{Context, Result};

use crate::suite::{assert_wrong_type, Kv};

pub async fn increments_of_many_callers_add_up(kv: Kv) -> Result<()> {
    const CALLERS: usize = 64;
    const TOTAL: i32 = 3_200;
    let returned = in_parallel(CALLERS, |_| {
        let kv = kv.clone();
        async move {
            let mut returned = Vec::new();
            for _ in 0..TOTAL / CALLERS as i32 {
                returned.push(kv.increment("concurrency/count", 1).await?);
            }
            Ok(returned)
        }
    })
    .await?;
    for mine in &returned {
        assert!(mine.is_sorted(), "a caller sees the count grow: {mine:?}");
    }
    let mut all = returned.concat();
    all.sort_unstable();
    assert_eq!(
        all,
        (1..=TOTAL).collect::<Vec<_>>(),
        "every value is returned once, the largest is {TOTAL}"
    );
    assert_eq!(kv.get("concurrency/count").await?, Some(TOTAL.to_string()));
    Ok(())
}

pub async fn list_additions_keep_the_order_of_each_caller(kv: Kv) -> Result<()> {
    const CALLERS: usize = 16;
    const EACH: usize = 40;
    let lengths = in_parallel(CALLERS, |caller| {
        let kv = kv.clone();
        async move {
            let mut lengths = Vec::new();
            for number in 0..EACH {
                lengths.push(kv.list_add("concurrency/list", &format!("{caller}:{number}")).await?);
            }
            Ok(lengths)
        }
    })
    .await?;
    let mut lengths = lengths.concat();
    lengths.sort_unstable();
    assert_eq!(
        lengths,
        (1..=(CALLERS * EACH) as u32).collect::<Vec<_>>(),
        "every length is returned once"
    );
    let list = kv.list("concurrency/list").await?;
    assert_eq!(list.len(), CALLERS * EACH);
    for caller in 0..CALLERS {
        let prefix = format!("{caller}:");
        let mine: Vec<_> = list.iter().filter_map(|item| item.strip_prefix(&prefix)).collect();
        let expected: Vec<_> = (0..EACH).map(|number| number.to_string()).collect();
        assert_eq!(mine, expected, "the items of caller {caller} in its own order");
    }
    Ok(())
}

pub async fn set_additions_of_many_callers_all_arrive(kv: Kv) -> Result<()> {
    const CALLERS: usize = 16;
    const EACH: usize = 40;
    let added = in_parallel(CALLERS, |caller| {
        let kv = kv.clone();
        async move {
            let mut added = 0;
            for number in 0..EACH {
                kv.set_add("concurrency/set", &format!("{caller}:{number}")).await?;
                added += kv.set_add("concurrency/contested", &number.to_string()).await?;
            }
            Ok(added)
        }
    })
    .await?;
    assert_eq!(
        added.iter().sum::<u32>() as usize,
        EACH,
        "a contested member is added by one caller only"
    );
    assert_eq!(kv.set_query("concurrency/set").await?.len(), CALLERS * EACH);
    assert_eq!(kv.set_query("concurrency/contested").await?.len(), EACH);
    Ok(())
}

pub async fn mixed_writers_of_one_key_leave_one_type(kv: Kv) -> Result<()> {
    let key = "concurrency/mixed";
    in_parallel(12, |caller| {
        let kv = kv.clone();
        async move {
            for number in 0..20 {
                let value = format!("{caller}:{number}");
                let answer = match caller % 4 {
                    0 => kv.list_add(key, &value).await.map(drop),
                    1 => kv.set_add(key, &value).await.map(drop),
                    2 => kv.increment(key, 1).await.map(drop),
                    _ => kv.del(key).await.map(drop),
                };
                if answer.is_err() {
                    assert_wrong_type(answer, "a writer that lost the race for the type");
                }
            }
            Ok(())
        }
    })
    .await?;
    let answers = [
        kv.get(key).await.is_ok(),
        kv.list(key).await.is_ok(),
        kv.set_query(key).await.is_ok(),
    ];
    let accepted = answers.into_iter().filter(|accepted| *accepted).count();
    let expected = if kv.contains(key).await? { 1 } else { 3 };
    assert_eq!(accepted, expected, "of Get, ListRange and SetQuery: {answers:?}");
    Ok(())
}

async fn in_parallel<T, F>(callers: usize, call: impl Fn(usize) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let tasks: Vec<_> = (0..callers).map(|caller| tokio::spawn(call(caller))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.context("a caller panicked")??);
    }
    Ok(results)
}
