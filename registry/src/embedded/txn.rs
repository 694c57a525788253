//! Transactions: which are refused, which branch is taken, and carrying it out.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use tonic::Status;

use super::apply::Batch;
use super::kv::check_range;
use super::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use super::pb::etcdserverpb::request_op::Request as Op;
use super::pb::etcdserverpb::response_op::Response as OpResponse;
use super::pb::etcdserverpb::{
    Compare, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use super::pb::mvccpb::KeyValue;
use super::range::check_revision;
use super::rights::Rights;
use super::store::Refusal;
use super::tables::Keys;

/// Operations in one transaction, as etcd by default.
const MAX_OPS: usize = 128;

/// Runs a transaction in the batch, or leaves nothing of it behind. What the branches that are taken write must be by
/// `rights`.
pub(super) fn run(
    batch: &mut Batch<'_>,
    request: TxnRequest,
    rights: &Rights,
) -> Result<TxnResponse, Refusal> {
    let path = decide(batch, &request)?;
    let mut operations = Vec::new();
    taken(&request, &mut path.iter().copied(), &mut operations);
    rights.check(batch, &operations)?;
    admit(batch, &request, &mut path.iter().copied())?;
    carry_out(batch, request, &mut path.iter().copied())
}

/// Refuses a transaction that is too large, or that writes a key twice, before anything is read for it.
pub(super) fn check(txn: &TxnRequest) -> Result<(), Status> {
    check_ops(txn, MAX_OPS)?;
    written(&txn.success)?;
    written(&txn.failure)?;
    Ok(())
}

/// Checks each operation by itself. As in etcd, a nested transaction may be as long as what its parent leaves
/// over, so that nesting ends by itself.
fn check_ops(txn: &TxnRequest, most: usize) -> Result<(), Status> {
    let longest = txn
        .compare
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    let Some(left) = most.checked_sub(longest) else {
        return Err(Status::invalid_argument(
            "etcdserver: too many operations in txn request",
        ));
    };
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(key_is_missing());
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Op::RequestRange(range)) => check_range(range)?,
            Some(Op::RequestPut(put)) => Batch::check_put_alone(put)?,
            Some(Op::RequestDeleteRange(delete)) if delete.key.is_empty() => {
                return Err(key_is_missing());
            }
            Some(Op::RequestDeleteRange(_)) => {}
            Some(Op::RequestTxn(inner)) => check_ops(inner, left)?,
            None => return Err(Status::invalid_argument("etcdserver: key not found")),
        }
    }
    Ok(())
}

fn key_is_missing() -> Status {
    Status::invalid_argument("etcdserver: key is not provided")
}

/// What a list of operations writes.
#[derive(Default)]
struct Written<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletions: Vec<Keys>,
}

impl Written<'_> {
    fn deletes(&self, puts: &BTreeSet<&[u8]>) -> bool {
        self.deletions.iter().any(|keys| keys.any_of(puts))
    }
}

/// What `ops` may write, unless they write a key twice. The two branches of a nested transaction may write the
/// same key, since only one of them runs.
fn written(ops: &[RequestOp]) -> Result<Written<'_>, Status> {
    let duplicate = || Status::invalid_argument("etcdserver: duplicate key given in txn request");
    let mut all = Written::default();
    for op in ops {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request {
            all.deletions
                .push(Keys::new(&delete.key, &delete.range_end));
        }
    }
    for op in ops {
        let Some(Op::RequestTxn(inner)) = &op.request else {
            continue;
        };
        let (then, or) = (written(&inner.success)?, written(&inner.failure)?);
        for branch in [&then, &or] {
            if !branch.puts.is_disjoint(&all.puts) || all.deletes(&branch.puts) {
                return Err(duplicate());
            }
        }
        for branch in [then, or] {
            all.puts.extend(branch.puts);
            all.deletions.extend(branch.deletions);
        }
    }
    let mut own = BTreeSet::new();
    for op in ops {
        if let Some(Op::RequestPut(put)) = &op.request
            && !(own.insert(put.key.as_slice()) && all.puts.insert(&put.key))
        {
            return Err(duplicate());
        }
    }
    if all.deletes(&own) {
        return Err(duplicate());
    }
    Ok(all)
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

/// The operations on the way, but for nested transactions, whose own they are.
fn taken<'r>(
    txn: &'r TxnRequest,
    path: &mut impl Iterator<Item = bool>,
    operations: &mut Vec<&'r Op>,
) {
    for op in branch(txn, path.next().unwrap_or_default()) {
        match &op.request {
            Some(Op::RequestTxn(inner)) => taken(inner, path, operations),
            Some(operation) => operations.push(operation),
            None => {}
        }
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
            Some(Op::RequestRange(range)) => {
                let mut found = batch.range(&range)?;
                found.header = inner_header(batch);
                OpResponse::ResponseRange(found)
            }
            Some(Op::RequestPut(put)) => {
                let mut put = batch.put(put)?;
                put.header = inner_header(batch);
                OpResponse::ResponsePut(put)
            }
            Some(Op::RequestDeleteRange(delete)) => {
                let mut deleted = batch.delete(&delete)?;
                deleted.header = inner_header(batch);
                OpResponse::ResponseDeleteRange(deleted)
            }
            Some(Op::RequestTxn(inner)) => {
                let mut inner = carry_out(batch, inner, path)?;
                inner.header = inner_header(batch);
                OpResponse::ResponseTxn(inner)
            }
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

/// What is in the header of each response within a transaction's: the revision, as far as it has come.
fn inner_header(batch: &Batch<'_>) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision: batch.revision(),
        ..ResponseHeader::default()
    })
}
