//! The operations of `wasmcloud:keyvalue`, as the contract's reference answers them.

use bytes::Bytes;
use wasmbus_rpc::provider::prelude::*;
use wasmcloud_interface_keyvalue::{
    GetResponse, IncrementRequest, KeyValue, ListAddRequest, ListDelRequest, ListRangeRequest, SetAddRequest,
    SetDelRequest, SetRequest, StringList,
};

use super::handler::KvCacheProvider;
use crate::cache::{CacheError, Key};
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
    fn named<TS: ToString + ?Sized>(&self, ctx: &Context, name: &TS) -> RpcResult<Key> {
        self.key(ctx, &name.to_string())
    }

    fn all_named(&self, ctx: &Context, names: &[String]) -> RpcResult<Vec<Key>> {
        names.iter().map(|name| self.key(ctx, name)).collect()
    }

    async fn delete<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, name: &TS) -> RpcResult<bool> {
        self.catch_up(ctx).await?;
        let (deleted, command) = self.cache().delete(&self.named(ctx, name)?, time::wall());
        self.replicate(ctx, command).await?;
        Ok(deleted)
    }
}

#[async_trait]
impl KeyValue for KvCacheProvider {
    async fn increment(&self, ctx: &Context, arg: &IncrementRequest) -> RpcResult<i32> {
        self.catch_up(ctx).await?;
        let key = self.key(ctx, &arg.key)?;
        let (value, command) = self.cache().increment(&key, arg.value, time::wall()).map_err(refused)?;
        self.replicate(ctx, command).await?;
        Ok(value)
    }

    async fn contains<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<bool> {
        self.catch_up(ctx).await?;
        Ok(self.cache().contains(&self.named(ctx, arg)?, time::wall()))
    }

    async fn del<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<bool> {
        self.delete(ctx, arg).await
    }

    async fn get<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<GetResponse> {
        self.catch_up(ctx).await?;
        Ok(
            match self
                .cache()
                .get(&self.named(ctx, arg)?, time::wall())
                .map_err(refused)?
            {
                Some(value) => GetResponse {
                    exists: true,
                    value: text(value)?,
                },
                None => GetResponse {
                    exists: false,
                    value: String::new(),
                },
            },
        )
    }

    async fn list_add(&self, ctx: &Context, arg: &ListAddRequest) -> RpcResult<u32> {
        self.catch_up(ctx).await?;
        let key = self.key(ctx, &arg.list_name)?;
        let value = Bytes::copy_from_slice(arg.value.as_bytes());
        let (length, command) = self.cache().list_push(&key, value, time::wall()).map_err(refused)?;
        self.replicate(ctx, command).await?;
        Ok(length)
    }

    async fn list_clear<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<bool> {
        self.delete(ctx, arg).await
    }

    async fn list_del(&self, ctx: &Context, arg: &ListDelRequest) -> RpcResult<bool> {
        self.catch_up(ctx).await?;
        let key = self.key(ctx, &arg.list_name)?;
        let command = self
            .cache()
            .list_remove(&key, arg.value.as_bytes(), time::wall())
            .map_err(refused)?;
        self.replicate_some(ctx, command).await
    }

    async fn list_range(&self, ctx: &Context, arg: &ListRangeRequest) -> RpcResult<StringList> {
        self.catch_up(ctx).await?;
        let key = self.key(ctx, &arg.list_name)?;
        texts(
            self.cache()
                .list_range(&key, arg.start, arg.stop, time::wall())
                .map_err(refused)?,
        )
    }

    async fn set(&self, ctx: &Context, arg: &SetRequest) -> RpcResult<()> {
        let key = self.key(ctx, &arg.key)?;
        let value = Bytes::copy_from_slice(arg.value.as_bytes());
        let command = self
            .cache()
            .set(&key, value, arg.expires, time::wall())
            .map_err(refused)?;
        self.replicate(ctx, command).await
    }

    async fn set_add(&self, ctx: &Context, arg: &SetAddRequest) -> RpcResult<u32> {
        self.catch_up(ctx).await?;
        let key = self.key(ctx, &arg.set_name)?;
        let member = Bytes::copy_from_slice(arg.value.as_bytes());
        let (new, command) = self.cache().set_add(&key, member, time::wall()).map_err(refused)?;
        self.replicate(ctx, command).await?;
        Ok(new.into())
    }

    async fn set_del(&self, ctx: &Context, arg: &SetDelRequest) -> RpcResult<u32> {
        self.catch_up(ctx).await?;
        let key = self.key(ctx, &arg.set_name)?;
        let member = Bytes::copy_from_slice(arg.value.as_bytes());
        let (removed, command) = self.cache().set_remove(&key, member, time::wall()).map_err(refused)?;
        self.replicate_some(ctx, command).await?;
        Ok(removed.into())
    }

    async fn set_intersection(&self, ctx: &Context, arg: &StringList) -> RpcResult<StringList> {
        self.catch_up(ctx).await?;
        let keys = self.all_named(ctx, arg)?;
        texts(self.cache().set_intersection(&keys, time::wall()).map_err(refused)?)
    }

    async fn set_query<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<StringList> {
        self.catch_up(ctx).await?;
        texts(
            self.cache()
                .set_members(&self.named(ctx, arg)?, time::wall())
                .map_err(refused)?,
        )
    }

    async fn set_union(&self, ctx: &Context, arg: &StringList) -> RpcResult<StringList> {
        self.catch_up(ctx).await?;
        let keys = self.all_named(ctx, arg)?;
        texts(self.cache().set_union(&keys, time::wall()).map_err(refused)?)
    }

    async fn set_clear<TS: ToString + ?Sized + Sync>(&self, ctx: &Context, arg: &TS) -> RpcResult<bool> {
        self.delete(ctx, arg).await
    }
}
