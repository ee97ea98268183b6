//! Serving: from the bus's requests to the daemon's service and back, and the orderly end.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use core_crypto::SecureBytes;
use core_ipc::{BusClient, Connector, Inbound, InboundRequest};
use core_types::DaemonName;
use core_types::config::Config;
use core_types::header::Sender;
use core_types::paths::Paths;
use core_types::protocol::{Call, DenialOf, Service, Topic, decode, encode};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::audit::AuditQueue;
use crate::inherited::inherited_listener;
use crate::process::{Process, StartError, report};
use crate::sandbox::Sandbox;
use crate::signals::told_to_end;
use crate::watchdog::Watchdog;

/// How long requests under way may take after the daemon was told to end, and how long its audit entries may.
const DRAIN: Duration = Duration::from_secs(3);

/// The period of a clock that nobody waits for.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// What a daemon is.
pub struct Daemon {
    /// Its name, on the bus and everywhere.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The topics it wants.
    pub topics: &'static [Topic],
    /// Whether its children shall inherit the hard limit on core files (the daemon itself never dumps core).
    pub keep_core_limit: bool,
    /// What it keeps of what a process may do.
    pub sandbox: Sandbox,
}

/// What a service is built from.
#[derive(Clone)]
pub struct Context {
    /// Where everything lies.
    pub paths: Paths,
    /// What the user configured.
    pub config: Config,
    /// The daemon's end of the bus.
    pub bus: BusClient,
    /// The way to the audit log.
    pub audit: AuditQueue,
}

/// Who asked, and with what besides the message.
#[derive(Debug)]
pub struct Caller {
    /// The sender, as stamped by the bus.
    pub sender: Sender,
    /// Descriptors that came with the request.
    pub descriptors: Vec<OwnedFd>,
    /// When the asker stops waiting.
    pub deadline: Instant,
}

/// An encoded reply or denial; made by [`answer`] only, so it always has the type that the call names.
pub struct Answer(Zeroizing<Vec<u8>>);

/// Encodes the result of a call.
#[must_use]
pub fn answer<C: Call>(_: &C, result: Result<C::Reply, DenialOf<C>>) -> Answer {
    match encode(&result) {
        Ok(body) => Answer(body),
        Err(error) => {
            tracing::error!(%error, method = C::METHOD, "a reply fits no frame");
            Answer(Zeroizing::default())
        }
    }
}

/// What a daemon does.
pub trait Serve: Send + Sync + 'static {
    /// The service it answers for.
    type Service: Service;

    /// Answers one request; requests run side by side.
    fn handle(
        &self,
        request: <Self::Service as Service>::Request,
        caller: Caller,
    ) -> impl Future<Output = Answer> + Send;

    /// Takes note of an event of a topic the daemon wants.
    fn event(&self, _topic: Topic, _body: &[u8], _sender: &Sender) {}

    /// Called after the last request, before the audit entries are drained and the process ends.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The whole `main` of a daemon: starts it, has it `prepare` what its sandbox will not let it do, enters the sandbox,
/// builds its service, serves until told to end, and ends in order.
pub fn run<S: Serve, P: Send + 'static>(
    daemon: Daemon,
    prepare: impl FnOnce(&Process) -> Result<P, StartError>,
    build: impl FnOnce(Context, P) -> Result<S, StartError> + Send + 'static,
) -> ExitCode {
    let name = daemon.name;
    let outcome = Process::start(name, daemon.keep_core_limit).and_then(|process| {
        let prepared = prepare(&process)?;
        daemon.sandbox.enter(name, &process.paths);
        let build = |context| build(context, prepared);
        let served = serve(process.paths.clone(), process.config.clone(), daemon, build);
        // A task, and not what the runtime waits for: that one is woken by two more system calls each time.
        process.block_on(async { tokio::spawn(served).await.unwrap_or_else(broken_off) })?
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(name, &error),
    }
}

fn broken_off(error: tokio::task::JoinError) -> Result<(), StartError> {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Err(StartError::Service(error.to_string())),
    }
}

async fn serve<S: Serve>(
    paths: Paths,
    config: Config,
    daemon: Daemon,
    build: impl FnOnce(Context) -> Result<S, StartError>,
) -> Result<(), StartError> {
    let (bus, mut inbound) = BusClient::start(Connector {
        paths: paths.clone(),
        name: DaemonName::parse(daemon.name).map_err(|error| StartError::Service(error.to_string()))?,
        version: daemon.version.to_owned(),
        topics: daemon.topics.to_vec(),
        sealed: S::Service::SEALED,
        service: S::Service::NAME,
        name_socket: inherited_listener(),
    })?;
    let origin = random_number()?;
    let audit = AuditQueue::start(bus.clone(), origin, daemon.name, &paths, &config)?;
    let context = Context { paths, config, bus: bus.clone(), audit };
    let service = Arc::new(build(context.clone())?);
    let mut running = JoinSet::new();
    // In a task of its own, so that it is not looked at with each request.
    let mut end = tokio::spawn(told_to_end());
    let watchdog = Watchdog::from_environment();
    let mut feeding = tokio::time::interval(watchdog.map_or(LONG, Watchdog::every));
    loop {
        tokio::select! {
            biased;
            _ = &mut end => break,
            // Here and nowhere else, so that a loop that is stuck is missed.
            _ = feeding.tick(), if watchdog.is_some() => Watchdog::feed(),
            Some(_) = running.join_next(), if !running.is_empty() => {}
            item = inbound.recv() => match item {
                None => break,
                Some(Inbound::Connected) => ready(daemon.name),
                Some(Inbound::Event { topic, sender, body }) => service.event(topic, &body, &sender),
                Some(Inbound::Request(request)) => {
                    let answering = Box::pin(handle(Arc::clone(&service), bus.clone(), request));
                    if let Some(waits) = begin(answering).await {
                        running.spawn(waits);
                    }
                }
            },
        }
    }
    tracing::info!("ending");
    notify(&[sd_notify::NotifyState::Stopping]);
    let finish = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, finish).await.is_err() {
        tracing::warn!("requests were still under way and were given up");
    }
    service.stop().await;
    context.audit.drain(DRAIN).await;
    Ok(())
}

/// Answers a request as far as nothing has to be waited for, which for most is to the end; what has to wait is given
/// back. So most need no task of their own. A panic ends the request alone, as it would in a task.
async fn begin<F: Future<Output = ()>>(mut answering: Pin<Box<F>>) -> Option<Pin<Box<F>>> {
    let poll = poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context)));
        Poll::Ready(polled.is_ok_and(|polled| polled.is_pending()))
    });
    let waits = poll.await;
    waits.then_some(answering)
}

async fn handle<S: Serve>(service: Arc<S>, bus: BusClient, request: InboundRequest) {
    let ticket = request.ticket();
    let body = match decode::<<S::Service as Service>::Request>(&request.body) {
        Ok(message) => {
            let caller = Caller {
                sender: request.sender,
                descriptors: request.descriptors,
                deadline: request.deadline,
            };
            service.handle(message, caller).await.0
        }
        Err(error) => {
            tracing::warn!(%error, requester = request.sender.requester(), "a request was not understood");
            Zeroizing::default()
        }
    };
    bus.respond(&ticket, &body);
    drop(body);
    core_crypto::memory::clear_registers();
}

fn ready(name: &'static str) {
    tracing::info!("{name} serves");
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Tells systemd, or whoever started us and speaks its protocol (sd_notify(3)); nobody listening is no fault.
pub(crate) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the starter was not told");
    }
}

fn random_number() -> Result<u64, StartError> {
    let bytes = SecureBytes::random(8).map_err(|error| StartError::Service(error.to_string()))?;
    let mut number = [0; 8];
    number.copy_from_slice(bytes.expose());
    Ok(u64::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_need_not_wait_is_answered_at_once_and_what_must_is_given_back() {
        let (done, mut told) = tokio::sync::oneshot::channel();
        assert!(begin(Box::pin(async { done.send(()).unwrap() })).await.is_none());
        assert!(told.try_recv().is_ok());
        let (go_on, waits_for) = tokio::sync::oneshot::channel();
        let waiting = begin(Box::pin(async { waits_for.await.unwrap() })).await.unwrap();
        go_on.send(()).unwrap();
        tokio::spawn(waiting).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_panics_ends_alone() {
        assert!(begin(Box::pin(async { panic!("for this test") })).await.is_none());
    }
}
