//! The Lease service.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::lease;
use super::pb::etcdserverpb::lease_server::Lease;
use super::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use super::rights::Rights;
use super::store::Store;
use super::tables::LEASE_KEYS;

/// The service.
pub(super) struct LeaseService {
    pub(super) store: Store,
    pub(super) stop: CancellationToken,
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        let (id, ttl) = lease::grant(&self.store, id, ttl).await?;
        let header = Some(self.store.header_now());
        Ok(Response::new(LeaseGrantResponse {
            header,
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let rights = Rights::of(&request);
        let id = request.into_inner().id;
        rights.check_lease(&self.store, id).await?;
        lease::revoke(&self.store, id).await?;
        Ok(Response::new(LeaseRevokeResponse {
            header: Some(self.store.header_now()),
        }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let rights = Rights::of(&request);
        let mut requests = request.into_inner();
        let (answers, stream) = mpsc::channel(16);
        let (store, stop) = (self.store.clone(), self.stop.clone());
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    () = stop.cancelled() => break,
                    () = answers.closed() => break,
                    request = requests.message() => request,
                };
                let Ok(Some(LeaseKeepAliveRequest { id })) = request else {
                    break;
                };
                let allowed = rights.check_lease(&store, id).await;
                let answer = allowed.map(|()| LeaseKeepAliveResponse {
                    ttl: store.leases.keep_alive(id),
                    header: Some(store.header_now()),
                    id,
                });
                let refused = answer.is_err();
                if answers.send(answer).await.is_err() || refused {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let header = Some(self.store.header_now());
        let Some((granted_ttl, left)) = self.store.leases.remaining(id) else {
            let gone = LeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                ..Default::default()
            };
            return Ok(Response::new(gone));
        };
        let ttl = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let keys = if keys {
            keys_of(&self.store, id).await?
        } else {
            Vec::new()
        };
        Ok(Response::new(LeaseTimeToLiveResponse {
            header,
            id,
            ttl,
            granted_ttl,
            keys,
        }))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let status = |id| LeaseStatus { id };
        let leases = self.store.leases.ids().into_iter().map(status).collect();
        let header = Some(self.store.header_now());
        Ok(Response::new(LeaseLeasesResponse { header, leases }))
    }
}

/// The keys that end with a lease.
pub(super) async fn keys_of(store: &Store, id: i64) -> Result<Vec<Vec<u8>>, Status> {
    store
        .read(move |read| {
            let mut keys = Vec::new();
            for item in read.open_table(LEASE_KEYS)?.range((id, &[][..])..)? {
                let key = item?.0;
                let (lease, key) = key.value();
                if lease != id {
                    break;
                }
                keys.push(key.to_vec());
            }
            Ok(keys)
        })
        .await
}
