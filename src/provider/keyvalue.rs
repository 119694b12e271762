//! The operations of `wasmcloud:keyvalue`, as the contract's reference answers them.

use bytes::Bytes;
use wasmbus_rpc::provider::prelude::*;
use wasmcloud_interface_keyvalue::{
    GetResponse, IncrementRequest, KeyValue, ListAddRequest, ListDelRequest, ListRangeRequest, SetAddRequest,
    SetDelRequest, SetRequest, StringList,
};

use super::config::Acks;
use super::handler::KvCacheProvider;
use crate::cache::{Blob, CacheError, Key};
use crate::time;

fn refused(error: CacheError) -> RpcError {
    match error {
        CacheError::NoKeys | CacheError::TooLarge { .. } => RpcError::InvalidParameter(error.to_string()),
        _ => RpcError::Other(error.to_string()),
    }
}

/// Everything that came in over this contract is text; other front ends may have written bytes.
fn text(bytes: Bytes) -> RpcResult<String> {
    String::from_utf8(bytes.into()).map_err(|_| RpcError::Other("the value is not UTF-8 text".into()))
}

fn texts(all: Vec<Bytes>) -> RpcResult<StringList> {
    all.into_iter().map(text).collect()
}

impl KvCacheProvider {
    fn named<TS: ToString + ?Sized>(&self, ctx: &Context, name: &TS) -> RpcResult<(Key, Acks)> {
        self.key(ctx, &name.to_string())
    }

    async fn delete<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, name: &TS) -> RpcResult<bool> {
        let (key, acks) = self.named(ctx, name)?;
        self.catch_up(acks).await?;
        let (deleted, command) = self.cache().delete(&key, time::wall()).map_err(refused)?;
        self.replicate(acks, command).await?;
        Ok(deleted)
    }
}

#[async_trait]
impl KeyValue for KvCacheProvider {
    async fn increment(&self, ctx: &Context, arg: &IncrementRequest) -> RpcResult<i32> {
        let (key, acks) = self.key(ctx, &arg.key)?;
        self.catch_up(acks).await?;
        let (value, command) = self.cache().increment(&key, arg.value, time::wall()).map_err(refused)?;
        self.replicate(acks, command).await?;
        Ok(value)
    }

    async fn contains<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<bool> {
        let (key, acks) = self.named(ctx, arg)?;
        self.catch_up(acks).await?;
        Ok(self.cache().contains(&key, time::wall()))
    }

    async fn del<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<bool> {
        self.delete(ctx, arg).await
    }

    async fn get<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<GetResponse> {
        let (key, acks) = self.named(ctx, arg)?;
        self.catch_up(acks).await?;
        Ok(match self.cache().get(&key, time::wall()).map_err(refused)? {
            Some(value) => GetResponse {
                exists: true,
                value: text(value)?,
            },
            None => GetResponse {
                exists: false,
                value: String::new(),
            },
        })
    }

    async fn list_add(&self, ctx: &Context, arg: &ListAddRequest) -> RpcResult<u32> {
        let (key, acks) = self.key(ctx, &arg.list_name)?;
        self.catch_up(acks).await?;
        let value = Blob::new(arg.value.as_bytes());
        let (length, command) = self.cache().list_push(&key, value, time::wall()).map_err(refused)?;
        self.replicate(acks, command).await?;
        Ok(length)
    }

    async fn list_clear<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<bool> {
        self.delete(ctx, arg).await
    }

    async fn list_del(&self, ctx: &Context, arg: &ListDelRequest) -> RpcResult<bool> {
        let (key, acks) = self.key(ctx, &arg.list_name)?;
        self.catch_up(acks).await?;
        let command = self
            .cache()
            .list_remove(&key, arg.value.as_bytes(), time::wall())
            .map_err(refused)?;
        self.replicate_some(acks, command).await
    }

    async fn list_range(&self, ctx: &Context, arg: &ListRangeRequest) -> RpcResult<StringList> {
        let (key, acks) = self.key(ctx, &arg.list_name)?;
        self.catch_up(acks).await?;
        texts(
            self.cache()
                .list_range(&key, arg.start, arg.stop, time::wall(), usize::MAX)
                .map_err(refused)?,
        )
    }

    async fn set(&self, ctx: &Context, arg: &SetRequest) -> RpcResult<()> {
        let (key, acks) = self.key(ctx, &arg.key)?;
        let value = Blob::new(arg.value.as_bytes());
        let command = self
            .cache()
            .set(&key, value, arg.expires, time::wall())
            .map_err(refused)?;
        self.replicate(acks, command).await
    }

    async fn set_add(&self, ctx: &Context, arg: &SetAddRequest) -> RpcResult<u32> {
        let (key, acks) = self.key(ctx, &arg.set_name)?;
        self.catch_up(acks).await?;
        let member = Blob::new(arg.value.as_bytes());
        let (new, command) = self.cache().set_add(&key, member, time::wall()).map_err(refused)?;
        self.replicate(acks, command).await?;
        Ok(new.into())
    }

    async fn set_del(&self, ctx: &Context, arg: &SetDelRequest) -> RpcResult<u32> {
        let (key, acks) = self.key(ctx, &arg.set_name)?;
        self.catch_up(acks).await?;
        let member = Blob::new(arg.value.as_bytes());
        let (removed, command) = self.cache().set_remove(&key, member, time::wall()).map_err(refused)?;
        self.replicate_some(acks, command).await?;
        Ok(removed.into())
    }

    async fn set_intersection(&self, ctx: &Context, arg: &StringList) -> RpcResult<StringList> {
        let (keys, acks) = self.keys(ctx, arg)?;
        self.catch_up(acks).await?;
        texts(
            self.cache()
                .set_intersection(&keys, time::wall(), usize::MAX)
                .map_err(refused)?,
        )
    }

    async fn set_query<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<StringList> {
        let (key, acks) = self.named(ctx, arg)?;
        self.catch_up(acks).await?;
        texts(
            self.cache()
                .set_members(&key, time::wall(), usize::MAX)
                .map_err(refused)?,
        )
    }

    async fn set_union(&self, ctx: &Context, arg: &StringList) -> RpcResult<StringList> {
        let (keys, acks) = self.keys(ctx, arg)?;
        self.catch_up(acks).await?;
        texts(
            self.cache()
                .set_union(&keys, time::wall(), usize::MAX)
                .map_err(refused)?,
        )
    }

    async fn set_clear<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<bool> {
        self.delete(ctx, arg).await
    }
}
