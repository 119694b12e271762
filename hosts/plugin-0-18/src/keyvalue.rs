//! The operations of `wasmcloud:keyvalue` as hosts 0.18 name them, with the answers of the contract's reference.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kvcache_node::answers;
use kvcache_node::service::{Answer, Error, Scope};
use kvcache_node::settings::LinkSettings;
use serde::{Deserialize, Serialize};
use wasmcloud_actor_keyvalue::{
    AddArgs, AddResponse, ClearArgs, DelArgs, DelResponse, GetResponse, KeyExistsArgs, ListItemDeleteArgs,
    ListRangeResponse, ListResponse, PushArgs, RangeArgs, SetAddArgs, SetArgs, SetIntersectionArgs,
    SetOperationResponse, SetQueryArgs, SetQueryResponse, SetRemoveArgs, SetResponse, SetUnionArgs,
};

use crate::plugin::{decoded, encoded, encoded_within, Failure, ROOM_FOR_NAMES};
use crate::serving::Serving;

/// Numbers of the contract are of type i32. The cache counts on in i64, and Get shows that.
const NUMBERS: RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;

type Encoded = Result<Vec<u8>, Failure>;

/// `GetArgs` and `GetResponse` without copies of the texts: the host gets far more often than it does anything else.
#[derive(Deserialize)]
struct Wanted<'a> {
    key: &'a str,
}

#[derive(Default, Serialize)]
struct Found<'a> {
    value: &'a str,
    exists: bool,
}

impl Serving {
    /// Performs one call.
    pub fn call(&self, actor: &str, operation: &str, argument: &[u8]) -> Encoded {
        let link = self.link_of(actor)?;
        let scope = &self.scope(actor, &link);
        match operation {
            "Add" => self.add(scope, decoded("AddArgs", argument)?),
            "Get" => self.get(scope, decoded("GetArgs", argument)?),
            "Set" => self.set(scope, decoded("SetArgs", argument)?),
            "Del" => {
                let DelArgs { key } = decoded("DelArgs", argument)?;
                self.delete(scope, key)
            }
            "Clear" => {
                let ClearArgs { key } = decoded("ClearArgs", argument)?;
                self.delete(scope, key)
            }
            "Range" => self.range(scope, decoded("RangeArgs", argument)?),
            "Push" => self.push(scope, decoded("PushArgs", argument)?),
            "ListItemDelete" => self.list_item_delete(scope, decoded("ListItemDeleteArgs", argument)?),
            "SetAdd" => self.set_add(scope, decoded("SetAddArgs", argument)?),
            "SetRemove" => self.set_remove(scope, decoded("SetRemoveArgs", argument)?),
            "SetUnion" => self.set_union(scope, decoded("SetUnionArgs", argument)?),
            "SetIntersection" => self.set_intersection(scope, decoded("SetIntersectionArgs", argument)?),
            "SetQuery" => self.set_query(scope, decoded("SetQueryArgs", argument)?),
            "KeyExists" => self.key_exists(scope, decoded("KeyExistsArgs", argument)?),
            unknown => Err(Failure::Unknown(unknown.chars().take(64).collect())),
        }
    }

    fn scope<'a>(&self, actor: &'a str, link: &'a LinkSettings) -> Scope<'a> {
        Scope {
            caller: actor,
            namespace: &link.namespace,
            acks: link.acks,
            caps: link.caps,
            max_answer_bytes: self.settings.max_answer_bytes,
        }
    }

    // --- scalars

    /// The sum is of all hosts, so a host that does not know them all cannot tell it.
    fn add(&self, scope: &Scope<'_>, AddArgs { key, value }: AddArgs) -> Encoded {
        self.has_all()?;
        let sum = self
            .service()
            .increment_within(scope, key.as_bytes(), value.into(), NUMBERS);
        answered(self.run(sum), |sum| AddResponse { value: number(sum) })
    }

    fn get(&self, scope: &Scope<'_>, Wanted { key }: Wanted<'_>) -> Encoded {
        // Asked first: a bootstrap that ends in between would make a miss of before look like one of after.
        let has_all = self.has_all();
        let encode = |value: Option<Bytes>| value.map(|value| found(&value));
        match content(self.run(self.service().get(scope, key.as_bytes(), encode)))? {
            Some(encoded) => encoded,
            None => has_all.and_then(|()| encoded(&Found::default())),
        }
    }

    fn key_exists(&self, scope: &Scope<'_>, KeyExistsArgs { key }: KeyExistsArgs) -> Encoded {
        let has_all = self.has_all();
        let exists = self
            .run(self.service().contains(scope, key.as_bytes()))
            .map_err(failed)?;
        if !exists {
            has_all?;
        }
        let value = String::new();
        encoded(&GetResponse { value, exists })
    }

    fn set(&self, scope: &Scope<'_>, SetArgs { key, value, expires }: SetArgs) -> Encoded {
        let Ok(expires) = u32::try_from(expires) else {
            let error = format!("'SetArgs': expires: expected a number of seconds, 0 for never, found {expires}");
            return Err(Failure::Argument(error));
        };
        let set = self.service().set(scope, key.as_bytes(), value.as_bytes(), expires);
        answered(self.run(set), |()| SetResponse { value })
    }

    /// A key of any type.
    fn delete(&self, scope: &Scope<'_>, key: String) -> Encoded {
        let deleted = self.run(self.service().delete(scope, key.as_bytes()));
        answered(deleted, |_| DelResponse { key })
    }

    // --- lists

    fn range(&self, scope: &Scope<'_>, RangeArgs { key, start, stop }: RangeArgs) -> Encoded {
        self.has_all()?;
        let range = (start.into(), stop.into());
        let encode = |items: Vec<Bytes>| texts(items).and_then(|values| encoded(&ListRangeResponse { values }));
        content(self.run(self.service().list_range(scope, key.as_bytes(), range, encode)))?
    }

    fn push(&self, scope: &Scope<'_>, PushArgs { key, value }: PushArgs) -> Encoded {
        let length = self.run(self.service().list_push(scope, key.as_bytes(), value.as_bytes()));
        answered(length, |length| ListResponse {
            new_count: number(length),
        })
    }

    /// Counts what was removed, as the reference does.
    fn list_item_delete(&self, scope: &Scope<'_>, ListItemDeleteArgs { key, value }: ListItemDeleteArgs) -> Encoded {
        let removed = self.run(self.service().list_remove(scope, key.as_bytes(), value.as_bytes()));
        answered(removed, |removed| ListResponse {
            new_count: removed.into(),
        })
    }

    // --- sets

    /// Counts what was added, as the reference does.
    fn set_add(&self, scope: &Scope<'_>, SetAddArgs { key, value }: SetAddArgs) -> Encoded {
        let added = self.run(self.service().set_add(scope, key.as_bytes(), value.as_bytes()));
        answered(added, changed)
    }

    fn set_remove(&self, scope: &Scope<'_>, SetRemoveArgs { key, value }: SetRemoveArgs) -> Encoded {
        let removed = self.run(self.service().set_remove(scope, key.as_bytes(), value.as_bytes()));
        answered(removed, changed)
    }

    fn set_query(&self, scope: &Scope<'_>, SetQueryArgs { key }: SetQueryArgs) -> Encoded {
        self.has_all()?;
        content(self.run(self.service().set_members(scope, key.as_bytes(), members)))?
    }

    fn set_union(&self, scope: &Scope<'_>, SetUnionArgs { keys }: SetUnionArgs) -> Encoded {
        self.has_all()?;
        content(self.run(self.service().set_union(scope, &names(&keys), members)))?
    }

    fn set_intersection(&self, scope: &Scope<'_>, SetIntersectionArgs { keys }: SetIntersectionArgs) -> Encoded {
        self.has_all()?;
        content(self.run(self.service().set_intersection(scope, &names(&keys), members)))?
    }
}

fn answered<T, A: Serialize>(made: Result<T, Error>, answer: impl FnOnce(T) -> A) -> Encoded {
    encoded(&answer(made.map_err(failed)?))
}

/// The turn of a large read ends here: the answer goes no further than to the host.
fn content<T>(read: Result<Answer<T>, Error>) -> Result<T, Failure> {
    read.map(|answer| answer.content).map_err(failed)
}

fn failed(error: Error) -> Failure {
    Failure::Failed(answers::failure(&error, &NUMBERS))
}

fn found(value: &[u8]) -> Encoded {
    let value = text(value)?;
    encoded_within(value.len() + ROOM_FOR_NAMES, &Found { value, exists: true })
}

fn changed(changed: bool) -> SetOperationResponse {
    SetOperationResponse {
        new_count: changed.into(),
    }
}

/// Within the contract's numbers; a list is no longer than they reach.
fn number(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

fn names(keys: &[String]) -> Vec<&[u8]> {
    keys.iter().map(String::as_bytes).collect()
}

fn members(members: Vec<Bytes>) -> Encoded {
    texts(members).and_then(|values| encoded(&SetQueryResponse { values }))
}

fn texts(all: Vec<Bytes>) -> Result<Vec<String>, Failure> {
    all.iter().map(|one| text(one).map(str::to_owned)).collect()
}

/// Everything that came in over this contract is text; other front ends may have written bytes.
fn text(bytes: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(bytes).map_err(|_| Failure::Failed("the value is not UTF-8 text".into()))
}
