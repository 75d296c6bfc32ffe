//! A relay of TCP connections that misbehaves on command.
//!
//! Left alone it passes everything on as it came: bytes, half-closes, resets. It lives in user space, so that it
//! acknowledges what it does not pass on; what the kernel must not even acknowledge is `Wire`'s business.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Port, epoch_seconds};

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// As if the other end had closed it.
    Fin,
    /// By a reset.
    Reset,
    /// Silently; the next byte of the client is answered by a reset.
    ResetAtUse,
}

/// What happens to connections from now on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// New connections are reset at once.
    pub(crate) refuses: bool,
    /// New connections are reset so long after they were accepted.
    pub(crate) cuts_after: Option<Duration>,
    /// Connections without a byte for so long are cut, at both sides.
    pub(crate) idle_cut: Option<(Duration, Cut)>,
    /// Nothing is passed on.
    pub(crate) stalls: bool,
    /// Everything is passed on so much later.
    pub(crate) delay: Duration,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    source: Option<IpAddr>,
    faults: watch::Receiver<Faults>,
    /// Counts the cuts of everything; each connection waits for the next.
    cuts: watch::Receiver<(u64, Cut)>,
    /// When a connection was cut for being idle.
    idle_cuts: Mutex<Vec<f64>>,
}

/// A listener on the loopback before `target`.
#[derive(Debug)]
pub(crate) struct FaultRelay {
    port: Port,
    faults: watch::Sender<Faults>,
    cuts: watch::Sender<(u64, Cut)>,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl FaultRelay {
    /// Passes connections on to `target`.
    pub(crate) fn before(target: SocketAddr) -> Self {
        Self::start(target, None)
    }

    /// Passes connections on to `target` as a host with the address `source`, any of 127/8.
    pub(crate) fn from(source: IpAddr, target: SocketAddr) -> Self {
        Self::start(target, Some(source))
    }

    fn start(target: SocketAddr, source: Option<IpAddr>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let port = Port::reserve();
        let (faults, faults_seen) = watch::channel(Faults::default());
        let (cuts, cuts_seen) = watch::channel((0, Cut::Fin));
        let shared = Arc::new(Shared {
            target,
            source,
            faults: faults_seen,
            cuts: cuts_seen,
            idle_cuts: Mutex::default(),
        });
        let listener = {
            let _entered = runtime.enter();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(port.addr()).unwrap();
            socket.listen(1024).unwrap()
        };
        let accepting = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&accepting);
                // Either end may leave in any way it likes.
                tokio::spawn(async move { drop(relay(stream, &shared).await) });
            }
        });
        Self {
            port,
            faults,
            cuts,
            shared,
            _runtime: runtime,
        }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// From now on.
    pub(crate) fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// Cuts every connection.
    pub(crate) fn cut_all(&self, cut: Cut) {
        self.cuts
            .send_modify(|(count, how)| (*count, *how) = (*count + 1, cut));
    }

    /// When connections were cut for being idle, in seconds since the epoch.
    pub(crate) fn idle_cuts(&self) -> Vec<f64> {
        self.shared.idle_cuts.lock().unwrap().clone()
    }
}

async fn relay(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    if shared.faults.borrow().refuses {
        return client.set_zero_linger();
    }
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = shared.source {
        socket.bind((source, 0).into())?;
    }
    let Ok(mut server) = socket.connect(shared.target).await else {
        return client.set_zero_linger();
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    if ended(&mut client, &mut server, shared).await == Cut::Reset {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

/// Passes everything on until both directions have ended, one is reset, or a fault ends them.
async fn ended(client: &mut TcpStream, server: &mut TcpStream, shared: &Shared) -> Cut {
    let mut faults = shared.faults.clone();
    let mut cuts = shared.cuts.clone();
    cuts.mark_unchanged();
    let opened_at = Instant::now();
    let used_at = Mutex::new(opened_at);
    let is_cut = AtomicBool::new(false);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    // A half-close ends one direction, a reset both at once.
    let both = async {
        tokio::try_join!(
            pump(
                from_client,
                to_server,
                shared.faults.clone(),
                &used_at,
                &is_cut
            ),
            pump(
                from_server,
                to_client,
                shared.faults.clone(),
                &used_at,
                &is_cut
            ),
        )
    };
    tokio::pin!(both);
    loop {
        let Faults {
            idle_cut,
            cuts_after,
            ..
        } = *faults.borrow_and_update();
        let idle_cut = idle_cut.filter(|_| !is_cut.load(Ordering::Relaxed));
        let idle_at = idle_cut.map(|(limit, _)| *used_at.lock().unwrap() + limit);
        let old_at = cuts_after.map(|limit| opened_at + limit);
        tokio::select! {
            // A cut is for all at once: what the peers of other connections do about theirs comes too late.
            biased;
            _ = cuts.changed() => return cuts.borrow().1,
            result = &mut both => return if result.is_ok() { Cut::Fin } else { Cut::Reset },
            _ = faults.changed() => {}
            () = until(old_at) => return Cut::Reset,
            () = until(idle_at) => {
                // Used meanwhile, or idle indeed.
                if let Some((limit, cut)) = idle_cut
                    && used_at.lock().unwrap().elapsed() >= limit
                {
                    shared.idle_cuts.lock().unwrap().push(epoch_seconds());
                    if cut != Cut::ResetAtUse {
                        return cut;
                    }
                    is_cut.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Faults>,
    used_at: &Mutex<Instant>,
    is_cut: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if is_cut.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        // The sender lives as long as the runtime.
        drop(faults.wait_for(|faults| !faults.stalls).await);
        let delay = faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        *used_at.lock().unwrap() = Instant::now();
        to.write_all(&buffer[..count]).await?;
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
