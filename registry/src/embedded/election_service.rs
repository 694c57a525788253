//! The Election service.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::pb::v3electionpb::election_server::Election;
use super::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use super::queue::{self, Place};
use super::store::Store;

/// The service.
pub(super) struct ElectionService {
    pub(super) store: Store,
    pub(super) stop: CancellationToken,
}

/// The leader that a request must name.
fn named(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

#[tonic::async_trait]
impl Election for ElectionService {
    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let CampaignRequest { name, lease, value } = request.into_inner();
        let place = Place::take(&self.store, &name, lease, value).await?;
        place.first(&self.stop).await?;
        let leader = LeaderKey {
            name,
            key: place.key.clone(),
            rev: place.revision,
            lease: place.lease,
        };
        place.keep();
        Ok(Response::new(CampaignResponse {
            header: Some(self.store.header_now()),
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let ProclaimRequest { leader, value } = request.into_inner();
        let leader = named(leader)?;
        if !queue::revalue(&self.store, leader.key, leader.rev, value).await? {
            return Err(Status::unknown("election: not leader"));
        }
        let header = Some(self.store.header_now());
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (revision, first) = queue::head(&self.store, &request.into_inner().name).await?;
        if first.is_none() {
            return Err(Status::unknown("election: no leader"));
        }
        let header = Some(self.store.header(revision));
        Ok(Response::new(LeaderResponse { header, kv: first }))
    }

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let (leaders, stream) = mpsc::channel(1);
        let observed = observe(self.store.clone(), request.into_inner().name, leaders);
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(observed).await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let leader = named(request.into_inner().leader)?;
        queue::leave(&self.store, leader.key, leader.rev).await?;
        let header = Some(self.store.header_now());
        Ok(Response::new(ResignResponse { header }))
    }
}

/// Tells each leader and what it proclaims. Who is slow to listen may miss some of it, but not the last.
async fn observe(
    store: Store,
    name: Vec<u8>,
    leaders: mpsc::Sender<Result<LeaderResponse, Status>>,
) {
    let mut committed = store.revision();
    let mut told = 0;
    loop {
        committed.borrow_and_update();
        let next = match queue::head(&store, &name).await {
            Ok((revision, Some(kv))) if kv.mod_revision != told => {
                told = kv.mod_revision;
                Some(Ok(LeaderResponse {
                    header: Some(store.header(revision)),
                    kv: Some(kv),
                }))
            }
            Ok(_) => None,
            Err(status) => Some(Err(status)),
        };
        let failed = matches!(next, Some(Err(_)));
        if let Some(next) = next
            && (leaders.send(next).await.is_err() || failed)
        {
            return;
        }
        tokio::select! {
            () = leaders.closed() => return,
            changed = committed.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
