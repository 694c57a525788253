//! The KV service: ranges, puts, deletions, transactions, compaction.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::apply::Batch;
use super::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use super::pb::etcdserverpb::kv_server::Kv;
use super::pb::etcdserverpb::request_op::Request as Op;
use super::pb::etcdserverpb::response_op::Response as OpResponse;
use super::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, RequestOp,
    ResponseOp, TxnRequest, TxnResponse,
};
use super::pb::mvccpb::KeyValue;
use super::range::check_revision;
use super::store::{Refusal, Store};
use super::tables::Keys;

/// Operations in one transaction, as etcd by default.
const MAX_OPS: usize = 128;
/// How deep transactions may be nested.
const MAX_DEPTH: usize = 4;

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
        if request.key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
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
        let request = request.into_inner();
        let write = move |batch: &mut Batch<'_>| {
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
        let request = request.into_inner();
        if request.key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        let write = move |batch: &mut Batch<'_>| {
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
        let request = request.into_inner();
        check(&request, 0)?;
        let store = self.0.clone();
        let write = move |batch: &mut Batch<'_>| {
            let path = decide(batch, &request)?;
            admit(batch, &request, &mut path.iter().copied())?;
            let response = carry_out(batch, request, &mut path.iter().copied())?;
            batch.seal();
            Ok((batch.revision(), response))
        };
        let (revision, response) = store.write(write).await?;
        Ok(Response::new(TxnResponse {
            header: Some(self.0.header(revision)),
            ..response
        }))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let revision = request.into_inner().revision;
        self.0.write(move |batch| batch.compact(revision)).await?;
        Ok(Response::new(CompactionResponse {
            header: Some(self.0.header_now()),
        }))
    }
}

/// Refuses a transaction that is too large, or that writes a key twice, before anything is read for it.
fn check(txn: &TxnRequest, depth: usize) -> Result<(), Status> {
    let longest = txn
        .compare
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    if longest > MAX_OPS || depth > MAX_DEPTH {
        return Err(Status::invalid_argument(
            "etcdserver: too many operations in txn request",
        ));
    }
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Status::invalid_argument("etcdserver: key is not provided"));
    }
    for branch in [&txn.success, &txn.failure] {
        let mut puts = BTreeSet::new();
        let mut deletions = Vec::new();
        collect(branch, depth, &mut puts, &mut deletions)?;
        if puts
            .iter()
            .any(|key| deletions.iter().any(|range: &Keys| range.contains(key)))
        {
            return Err(duplicate_key());
        }
    }
    Ok(())
}

fn duplicate_key() -> Status {
    Status::invalid_argument("etcdserver: duplicate key given in txn request")
}

fn collect<'a>(
    ops: &'a [RequestOp],
    depth: usize,
    puts: &mut BTreeSet<&'a [u8]>,
    deletions: &mut Vec<Keys>,
) -> Result<(), Status> {
    for op in ops {
        match &op.request {
            Some(Op::RequestPut(put)) => {
                if !puts.insert(&put.key) {
                    return Err(duplicate_key());
                }
            }
            Some(Op::RequestDeleteRange(delete)) => {
                if delete.key.is_empty() {
                    return Err(Status::invalid_argument("etcdserver: key is not provided"));
                }
                deletions.push(Keys::new(&delete.key, &delete.range_end));
            }
            Some(Op::RequestRange(range)) => {
                if range.key.is_empty() {
                    return Err(Status::invalid_argument("etcdserver: key is not provided"));
                }
            }
            Some(Op::RequestTxn(inner)) => {
                check(inner, depth + 1)?;
                // Only one branch of the inner one will run, so each is held against the outside alone.
                let outside = puts.clone();
                for branch in [&inner.success, &inner.failure] {
                    let mut inside = outside.clone();
                    collect(branch, depth + 1, &mut inside, deletions)?;
                    puts.extend(inside);
                }
            }
            None => return Err(Status::invalid_argument("etcdserver: key not found")),
        }
    }
    Ok(())
}

/// Which branches are taken, this transaction first, then the nested ones of that branch in order. All
/// comparisons see the state before the transaction.
fn decide(batch: &Batch<'_>, txn: &TxnRequest) -> Result<Vec<bool>, Refusal> {
    let mut succeeded = true;
    for compare in &txn.compare {
        succeeded = succeeded && holds(batch, compare)?;
    }
    let mut path = vec![succeeded];
    for op in branch(txn, succeeded) {
        if let Some(Op::RequestTxn(inner)) = &op.request {
            path.extend(decide(batch, inner)?);
        }
    }
    Ok(path)
}

fn branch(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded {
        &txn.success
    } else {
        &txn.failure
    }
}

fn holds(batch: &Batch<'_>, compare: &Compare) -> Result<bool, Refusal> {
    let found = batch.values(&Keys::new(&compare.key, &compare.range_end))?;
    if found.is_empty() {
        // There is no value to compare with; all numbers of an absent key are 0.
        let absent = KeyValue::default();
        return Ok(compare.target() != CompareTarget::Value && matches(compare, &absent));
    }
    Ok(found.iter().all(|kv| matches(compare, kv)))
}

fn matches(compare: &Compare, kv: &KeyValue) -> bool {
    let number = |wanted: fn(&TargetUnion) -> Option<i64>| {
        compare
            .target_union
            .as_ref()
            .and_then(wanted)
            .unwrap_or_default()
    };
    let order = match compare.target() {
        CompareTarget::Version => kv.version.cmp(&number(|target| match target {
            TargetUnion::Version(n) => Some(*n),
            _ => None,
        })),
        CompareTarget::Create => kv.create_revision.cmp(&number(|target| match target {
            TargetUnion::CreateRevision(n) => Some(*n),
            _ => None,
        })),
        CompareTarget::Mod => kv.mod_revision.cmp(&number(|target| match target {
            TargetUnion::ModRevision(n) => Some(*n),
            _ => None,
        })),
        CompareTarget::Lease => kv.lease.cmp(&number(|target| match target {
            TargetUnion::Lease(n) => Some(*n),
            _ => None,
        })),
        CompareTarget::Value => match &compare.target_union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value.as_slice().cmp(&[]),
        },
    };
    match compare.result() {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::NotEqual => order != Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
    }
}

/// Whether all operations on the way could be carried out.
fn admit(
    batch: &Batch<'_>,
    txn: &TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> Result<(), Refusal> {
    for op in branch(txn, path.next().unwrap_or_default()) {
        match &op.request {
            Some(Op::RequestPut(put)) => batch.check_put(put)?,
            Some(Op::RequestRange(range)) => {
                // A read is answered at the latest revision, whichever the writes before it make.
                check_revision(range.revision, batch.revision(), batch.compacted())?;
            }
            Some(Op::RequestTxn(inner)) => admit(batch, inner, path)?,
            Some(Op::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

fn carry_out(
    batch: &mut Batch<'_>,
    txn: TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> Result<TxnResponse, Refusal> {
    let succeeded = path.next().unwrap_or_default();
    let ops = if succeeded { txn.success } else { txn.failure };
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        let response = match op.request {
            Some(Op::RequestRange(range)) => OpResponse::ResponseRange(batch.range(&range)?),
            Some(Op::RequestPut(put)) => OpResponse::ResponsePut(batch.put(put)?),
            Some(Op::RequestDeleteRange(delete)) => {
                OpResponse::ResponseDeleteRange(batch.delete(&delete)?)
            }
            Some(Op::RequestTxn(inner)) => OpResponse::ResponseTxn(carry_out(batch, inner, path)?),
            None => continue, // refused by `check`
        };
        responses.push(ResponseOp {
            response: Some(response),
        });
    }
    Ok(TxnResponse {
        header: None,
        succeeded,
        responses,
    })
}
