//! The Cluster and Maintenance services of a cluster of one.

use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::pb::etcdserverpb::alarm_request::AlarmAction;
use super::pb::etcdserverpb::cluster_server::Cluster;
use super::pb::etcdserverpb::maintenance_server::Maintenance;
use super::pb::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, MoveLeaderResponse, RangeRequest,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use super::store::{Store, view_range};
use super::tables::{COMPACTED, META, counter};

/// The version of etcd whose protocol is spoken.
const VERSION: &str = "3.4.0";

/// Both services.
#[derive(Clone)]
pub(super) struct MemberService {
    pub(super) store: Store,
    /// Where clients reach this member.
    pub(super) url: String,
}

fn refuse<T>(what: &str) -> Result<Response<T>, Status> {
    let message =
        format!("the embedded registry is a single member without {what}, use an etcd cluster");
    Err(Status::unimplemented(message))
}

impl MemberService {
    /// That the disk is full, until a write has found it no longer so; nobody has to disarm it.
    fn alarms(&self) -> Vec<AlarmMember> {
        let full = AlarmMember {
            member_id: self.store.member(),
            alarm: AlarmType::Nospace.into(),
        };
        self.store
            .disk()
            .is_full()
            .then_some(full)
            .into_iter()
            .collect()
    }

    /// A hash of all keys and values as of `revision`, or of now if that is 0. Equal contents have equal hashes;
    /// etcd's own, which is one of how it stores them, differs.
    async fn hashed(&self, revision: i64) -> Result<HashKvResponse, Status> {
        let everything = RangeRequest {
            key: vec![0],
            range_end: vec![0],
            revision,
            ..RangeRequest::default()
        };
        let (now, compacted, found) = self
            .store
            .read(move |read| {
                let (now, found) = view_range(read, &everything)?;
                Ok((now, counter(&read.open_table(META)?, COMPACTED)?, found))
            })
            .await?;
        let bytes = found
            .kvs
            .iter()
            .map(Message::encode_length_delimited_to_vec);
        Ok(HashKvResponse {
            header: Some(self.store.header(now)),
            hash: bytes.fold(FNV_BASIS, |hash, kv| fnv1a(hash, &kv)),
            compact_revision: compacted,
            hash_revision: if revision == 0 { now } else { revision },
        })
    }
}

fn alarm_text(alarm: &AlarmMember) -> String {
    format!(
        "memberID:{} alarm:{} ",
        alarm.member_id,
        alarm.alarm().as_str_name()
    )
}

/// What a hash by FNV-1a of 32 bits begins with.
const FNV_BASIS: u32 = 0x811c_9dc5;

fn fnv1a(hash: u32, bytes: &[u8]) -> u32 {
    const PRIME: u32 = 0x0100_0193;
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME)
    })
}

#[tonic::async_trait]
impl Cluster for MemberService {
    async fn member_list(
        &self,
        _: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let member = Member {
            id: self.store.member(),
            name: "embedded".to_owned(),
            client_ur_ls: vec![self.url.clone()],
            ..Member::default()
        };
        let header = Some(self.store.header_now());
        Ok(Response::new(MemberListResponse {
            header,
            members: vec![member],
        }))
    }

    async fn member_add(
        &self,
        _: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        refuse("changes of membership")
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        refuse("changes of membership")
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        refuse("changes of membership")
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        refuse("changes of membership")
    }
}

#[tonic::async_trait]
impl Maintenance for MemberService {
    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let size = match tokio::fs::metadata(self.store.disk().path()).await {
            Ok(file) => i64::try_from(file.len()).unwrap_or(i64::MAX),
            Err(error) => return Err(Status::unavailable(error.to_string())),
        };
        let header = self.store.header_now();
        let index = header.revision.unsigned_abs();
        Ok(Response::new(StatusResponse {
            version: VERSION.to_owned(),
            db_size: size,
            db_size_in_use: size,
            leader: header.member_id,
            raft_index: index,
            raft_applied_index: index,
            raft_term: header.raft_term,
            errors: self.alarms().iter().map(alarm_text).collect(),
            header: Some(header),
            ..StatusResponse::default()
        }))
    }

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        match request.into_inner().action() {
            AlarmAction::Get | AlarmAction::Deactivate => {
                let header = Some(self.store.header_now());
                Ok(Response::new(AlarmResponse {
                    header,
                    alarms: self.alarms(),
                }))
            }
            AlarmAction::Activate => refuse("alarms"),
        }
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.store.compact_file().await?;
        let header = Some(self.store.header_now());
        Ok(Response::new(DefragmentResponse { header }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let found = self.hashed(0).await?;
        Ok(Response::new(HashResponse {
            header: found.header,
            hash: found.hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let revision = request.into_inner().revision;
        self.hashed(revision).await.map(Response::new)
    }

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        refuse("snapshots to stream, copy its file while the daemon is stopped")
    }

    async fn move_leader(
        &self,
        _: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        refuse("elections")
    }

    async fn downgrade(
        &self,
        _: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        refuse("versions to go back to")
    }
}
