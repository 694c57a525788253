//! The Lock service.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::apply::Batch;
use super::pb::etcdserverpb::DeleteRangeRequest;
use super::pb::v3lockpb::lock_server::Lock;
use super::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use super::queue::Place;
use super::store::Store;

/// The service.
pub(super) struct LockService {
    pub(super) store: Store,
    pub(super) stop: CancellationToken,
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let LockRequest { name, lease } = request.into_inner();
        let place = Place::take(&self.store, &name, lease, Vec::new()).await?;
        place.first(&self.stop).await?;
        let response = LockResponse {
            header: Some(self.store.header_now()),
            key: place.key.clone(),
        };
        place.keep();
        Ok(Response::new(response))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        let request = DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        };
        let unlock = move |batch: &mut Batch<'_>| {
            batch.delete(&request)?;
            batch.seal();
            Ok(batch.revision())
        };
        let revision = self.store.write(unlock).await?;
        Ok(Response::new(UnlockResponse {
            header: Some(self.store.header(revision)),
        }))
    }
}
