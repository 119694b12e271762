//! Shared by the two provider binaries that ours is measured beside.

/// Implements the contract for a provider of which get and set alone are measured; everything else is refused.
///
/// A macro, because a trait in between would cost each call one more allocation than our provider has.
macro_rules! only_get_and_set {
    ($provider:ty { $($measured:tt)* }) => {
        #[async_trait]
        impl KeyValue for $provider {
            $($measured)*

            async fn increment(&self, _: &Context, _: &IncrementRequest) -> RpcResult<i32> { refused() }
            async fn contains<TS: ToString + ?Sized + Sync>(&self, _: &Context, _: &TS) -> RpcResult<bool> { refused() }
            async fn del<TS: ToString + ?Sized + Sync>(&self, _: &Context, _: &TS) -> RpcResult<bool> { refused() }
            async fn list_add(&self, _: &Context, _: &ListAddRequest) -> RpcResult<u32> { refused() }
            async fn list_clear<TS: ToString + ?Sized + Sync>(&self, _: &Context, _: &TS) -> RpcResult<bool> { refused() }
            async fn list_del(&self, _: &Context, _: &ListDelRequest) -> RpcResult<bool> { refused() }
            async fn list_range(&self, _: &Context, _: &ListRangeRequest) -> RpcResult<StringList> { refused() }
            async fn set_add(&self, _: &Context, _: &SetAddRequest) -> RpcResult<u32> { refused() }
            async fn set_del(&self, _: &Context, _: &SetDelRequest) -> RpcResult<u32> { refused() }
            async fn set_intersection(&self, _: &Context, _: &StringList) -> RpcResult<StringList> { refused() }
            async fn set_query<TS: ToString + ?Sized + Sync>(&self, _: &Context, _: &TS) -> RpcResult<StringList> { refused() }
            async fn set_union(&self, _: &Context, _: &StringList) -> RpcResult<StringList> { refused() }
            async fn set_clear<TS: ToString + ?Sized + Sync>(&self, _: &Context, _: &TS) -> RpcResult<bool> { refused() }
        }

        fn refused<T>() -> RpcResult<T> {
            Err(RpcError::NotImplemented)
        }
    };
}

pub(crate) use only_get_and_set;
