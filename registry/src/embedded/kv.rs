//! The KV service: ranges, puts, deletions, transactions, compaction.

use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::apply::Batch;
use super::pb::etcdserverpb::kv_server::Kv;
use super::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use super::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use super::rights::Rights;
use super::store::Store;
use super::txn;

/// Largest request in bytes, as etcd by default.
pub(super) const MAX_REQUEST: usize = 3 << 19;

/// The service.
pub(super) struct KvService(pub(super) Store);

#[tonic::async_trait]
impl Kv for KvService {
    type RangeStreamStream = ReceiverStream<Result<RangeStreamResponse, Status>>;

    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        check_range(&request)?;
        self.0.range(request).await.map(Response::new)
    }

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented(
            "the embedded registry has no RangeStream, use Range with a limit",
        ))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let rights = Rights::of(&request);
        let request = request.into_inner();
        check_size(&request)?;
        let write = move |batch: &mut Batch<'_>| {
            rights.check_put(batch, &request)?;
            batch.check_put(&request)?;
            let response = batch.put(request)?;
            batch.seal();
            Ok((batch.revision(), response))
        };
        let (revision, response) = self.0.write(write).await?;
        Ok(Response::new(PutResponse {
            header: Some(self.0.header(revision)),
            ..response
        }))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let rights = Rights::of(&request);
        let request = request.into_inner();
        if request.key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        let write = move |batch: &mut Batch<'_>| {
            rights.check_delete(batch, &request)?;
            let response = batch.delete(&request)?;
            batch.seal();
            Ok((batch.revision(), response))
        };
        let (revision, response) = self.0.write(write).await?;
        Ok(Response::new(DeleteRangeResponse {
            header: Some(self.0.header(revision)),
            ..response
        }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let rights = Rights::of(&request);
        let request = request.into_inner();
        txn::check(&request)?;
        check_size(&request)?;
        let write = move |batch: &mut Batch<'_>| {
            let response = txn::run(batch, request, &rights)?;
            batch.seal();
            Ok((batch.revision(), response))
        };
        let (revision, response) = self.0.write(write).await?;
        Ok(Response::new(TxnResponse {
            header: Some(self.0.header(revision)),
            ..response
        }))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Rights::of(&request).check_compact()?;
        let revision = request.into_inner().revision;
        self.0.write(move |batch| batch.compact(revision)).await?;
        Ok(Response::new(CompactionResponse {
            header: Some(self.0.header_now()),
        }))
    }
}

/// Refuses a range request that no state of the store could answer.
pub(super) fn check_range(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(Status::invalid_argument("etcdserver: key is not provided"));
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if !known {
        return Err(Status::invalid_argument("etcdserver: invalid sort option"));
    }
    Ok(())
}

fn check_size(request: &impl Message) -> Result<(), Status> {
    if request.encoded_len() > MAX_REQUEST {
        return Err(Status::invalid_argument("etcdserver: request is too large"));
    }
    Ok(())
}
