//! The contract of `shim.proto` on the control socket.

use litegix_protocol::shim::shim_server::Shim;
use litegix_protocol::shim::{
    ExitRecord, KillRequest, KillResponse, StatusRequest, StatusResponse, SyncClockRequest,
    SyncClockResponse, WaitRequest, WaitResponse,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// The generation of `shim.proto` that this supervisor speaks.
const GENERATION: u32 = 1;
/// The limit for a measurement of the guest's clock.
const CLOCK_DEADLINE: Duration = Duration::from_secs(2);

/// A measurement of the guest's clock: its lead on the host's, and the uncertainty of that.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub offset_ns: i64,
    pub uncertainty_ns: i64,
}

/// State that the control socket and the supervision share.
pub struct Shared {
    pub id: String,
    pub vmm_pid: watch::Sender<u32>,
    /// Set once the record is on disk.
    pub record: watch::Sender<Option<ExitRecord>>,
    /// Set once every process of the VM is reaped.
    pub all_reaped: watch::Sender<bool>,
    pub kill: Notify,
    /// True once a caller has got the record.
    pub fetched: Notify,
    /// A caller wants the guest's clock to be measured now.
    pub clock_wanted: Notify,
    /// The latest measurement.
    pub clock: watch::Sender<Option<Measured>>,
}

impl Shared {
    pub fn new(id: String) -> Self {
        Self {
            id,
            vmm_pid: watch::Sender::new(0),
            record: watch::Sender::new(None),
            all_reaped: watch::Sender::new(false),
            kill: Notify::new(),
            fetched: Notify::new(),
            clock_wanted: Notify::new(),
            clock: watch::Sender::new(None),
        }
    }

    async fn recorded(&self) -> Option<ExitRecord> {
        let mut record = self.record.subscribe();
        let record = record.wait_for(Option::is_some).await.ok()?.clone();
        self.fetched.notify_one();
        record
    }
}

pub struct Control(pub Arc<Shared>);

#[tonic::async_trait]
impl Shim for Control {
    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.0.id.clone(),
            shim_pid: std::process::id(),
            vmm_pid: *self.0.vmm_pid.borrow(),
            generation: GENERATION,
        }))
    }

    async fn wait(&self, _request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let record = self.0.recorded().await;
        Ok(Response::new(WaitResponse { record }))
    }

    async fn kill(&self, _request: Request<KillRequest>) -> Result<Response<KillResponse>, Status> {
        self.0.kill.notify_one();
        let mut reaped = self.0.all_reaped.subscribe();
        reaped
            .wait_for(|reaped| *reaped)
            .await
            .map_err(|_| Status::internal("the supervisor ends"))?;
        let record = self.0.recorded().await;
        Ok(Response::new(KillResponse { record }))
    }

    async fn sync_clock(
        &self,
        _request: Request<SyncClockRequest>,
    ) -> Result<Response<SyncClockResponse>, Status> {
        let mut looks = self.0.clock.subscribe();
        self.0.clock_wanted.notify_one();
        let no_answer = || Status::unavailable("the guest does not report its time");
        timeout(CLOCK_DEADLINE, looks.changed())
            .await
            .map_err(|_| no_answer())?
            .map_err(|_| no_answer())?;
        let look = *looks.borrow();
        let Measured {
            offset_ns,
            uncertainty_ns,
        } = look.ok_or_else(no_answer)?;
        Ok(Response::new(SyncClockResponse {
            offset_ns,
            uncertainty_ns,
        }))
    }
}
