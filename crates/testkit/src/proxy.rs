//! A TCP proxy that misbehaves on request: it cuts, drops, delays, swallows and is slow.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::nats_server::NatsServer;
use crate::wait::eventually;

const PIECE: usize = 16 << 10;
/// The same on a slow line, so that connections share it evenly.
const SMALL_PIECE: usize = 2 << 10;
/// Pieces of one direction of a connection that are on their way: with a delay, this is what the line holds.
const PIECES_UNDER_WAY: usize = 1_024;
/// Bytes that wait in front of a slow line.
const LINE_BUFFER: u64 = 128 << 10;
/// What the system keeps in front of it: without a bound, some megabytes.
const SOCKET_BUFFER: u32 = 64 << 10;
const BACKLOG: u32 = 256;
/// Between two lives of the listener another process may hold its port for a moment.
const REBIND_LIMIT: Duration = Duration::from_secs(10);

/// One of the two directions of a proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::ToServer, Self::ToClient];
}

/// What a proxy has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Connections closed by [`FaultyProxy::cut`] and [`FaultyProxy::drop_connections`].
    pub dropped: u64,
    /// Connections given up because the server behind was not there.
    pub unreachable: u64,
    pub bytes_to_server: u64,
    pub bytes_to_client: u64,
}

/// A proxy on a port of its own in front of one server. Dropping it closes all connections and ends its tasks.
///
/// A new proxy passes everything on; [`Self::heal`] makes it do so again.
#[derive(Debug)]
pub struct FaultyProxy {
    port: u16,
    orders: mpsc::Sender<Order>,
    line: watch::Sender<Line>,
    counters: Arc<Counters>,
    task: AbortHandle,
}

/// How bytes travel, by direction.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    delay: [Duration; 2],
    stalled: [bool; 2],
    /// Bytes per second of all connections together; 0: any number.
    rate: [u64; 2],
}

/// Until when a slow line is busy, by direction.
type Busy = Arc<Mutex<[Option<Instant>; 2]>>;

impl Line {
    /// When the last of so many bytes has been carried.
    fn carry(&self, direction: Direction, bytes: usize, busy: &Busy) -> Instant {
        let now = Instant::now();
        let rate = self.rate[direction as usize];
        if rate == 0 {
            return now;
        }
        let mut busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
        let from = busy[direction as usize].map_or(now, |until| until.max(now));
        let until = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
        busy[direction as usize] = Some(until);
        until
    }

    /// How long a slow line takes for what may wait in front of it.
    fn buffered(&self, direction: Direction) -> Duration {
        match self.rate[direction as usize] {
            0 => Duration::MAX,
            rate => Duration::from_secs_f64(LINE_BUFFER as f64 / rate as f64),
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    open: AtomicU64,
    dropped: AtomicU64,
    unreachable: AtomicU64,
    bytes: [AtomicU64; 2],
}

#[derive(Debug)]
enum What {
    Cut,
    DropConnections,
    Open,
}

#[derive(Debug)]
struct Order {
    what: What,
    done: oneshot::Sender<Result<()>>,
}

impl FaultyProxy {
    /// A proxy in front of `server`, which need not run.
    pub async fn before(server: &NatsServer) -> Result<Self> {
        Self::start(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))).await
    }

    /// A proxy in front of whatever listens on `upstream`.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = bind(0)?.listen(BACKLOG).context("a port for the proxy")?;
        let port = listener.local_addr().context("the port of the proxy")?.port();
        let (orders, order) = mpsc::channel(1);
        let (line, _) = watch::channel(Line::default());
        let counters = Arc::new(Counters::default());
        let acceptor = Acceptor {
            port,
            upstream,
            gate: Gate::Open(listener),
            connections: JoinSet::new(),
            line: line.subscribe(),
            busy: Busy::default(),
            counters: counters.clone(),
        };
        Ok(Self {
            port,
            orders,
            line,
            counters,
            task: tokio::spawn(acceptor.run(order)).abort_handle(),
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for a NATS client.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Closes all connections and refuses new ones until [`Self::heal`].
    pub async fn cut(&self) -> Result<()> {
        self.order(What::Cut).await.context("cutting")
    }

    /// Closes the present connections; new ones are accepted.
    pub async fn drop_connections(&self) -> Result<()> {
        self.order(What::DropConnections).await.context("dropping connections")
    }

    /// Every byte of this direction arrives so much later, from now on. Zero is no delay.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.line.send_modify(|line| line.delay[direction as usize] = delay);
    }

    /// From now on the line carries so many bytes per second in this direction, of all connections together, one after
    /// the other; 128 KiB may wait in front of it. Zero is no limit.
    pub fn limit(&self, direction: Direction, bytes_per_second: u64) {
        self.line
            .send_modify(|line| line.rate[direction as usize] = bytes_per_second);
    }

    /// A half-open network: connections are accepted and stay open, but no byte of these directions arrives until
    /// [`Self::heal`]. The end of a connection does not get through either.
    pub fn stall(&self, directions: impl IntoIterator<Item = Direction>) {
        let directions: Vec<_> = directions.into_iter().collect();
        self.line.send_modify(|line| {
            directions
                .iter()
                .for_each(|direction| line.stalled[*direction as usize] = true);
        });
    }

    /// Ends cut, stall, delay and limit. What waits in stalled connections goes on its way.
    pub async fn heal(&self) -> Result<()> {
        self.order(What::Open).await.context("healing")?;
        self.line.send_replace(Line::default());
        Ok(())
    }

    pub fn stats(&self) -> ProxyStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProxyStats {
            accepted: read(&self.counters.accepted),
            open: read(&self.counters.open),
            dropped: read(&self.counters.dropped),
            unreachable: read(&self.counters.unreachable),
            bytes_to_server: read(&self.counters.bytes[Direction::ToServer as usize]),
            bytes_to_client: read(&self.counters.bytes[Direction::ToClient as usize]),
        }
    }

    async fn order(&self, what: What) -> Result<()> {
        let (done, result) = oneshot::channel();
        let order = Order { what, done };
        self.orders.send(order).await.ok().context("the proxy has ended")?;
        result.await.context("the proxy has ended")?
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        // The connections belong to the task and end with it.
        self.task.abort();
    }
}

enum Gate {
    Open(TcpListener),
    /// The socket keeps the port without listening on it: who connects is refused.
    Shut(Option<TcpSocket>),
}

impl Gate {
    async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Open(listener) => listener.accept().await.map(|(stream, _)| stream),
            Self::Shut(_) => std::future::pending().await,
        }
    }
}

struct Acceptor {
    port: u16,
    upstream: SocketAddr,
    gate: Gate,
    connections: JoinSet<()>,
    line: watch::Receiver<Line>,
    busy: Busy,
    counters: Arc<Counters>,
}

impl Acceptor {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    let result = self.obey(order.what).await;
                    // Whoever gave the order may have stopped waiting.
                    let _ = order.done.send(result);
                }
                accepted = self.gate.accept() => match accepted {
                    Ok(client) => self.carry(client),
                    Err(error) => eprintln!("the proxy on port {} cannot accept: {error}", self.port),
                },
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn obey(&mut self, what: What) -> Result<()> {
        match what {
            What::Cut => {
                if let Gate::Open(_) = self.gate {
                    // The listener has to go first: two sockets cannot hold a port that one of them listens on.
                    self.gate = Gate::Shut(None);
                    self.gate = Gate::Shut(bind(self.port).ok());
                }
                self.drop_connections().await;
            }
            What::DropConnections => self.drop_connections().await,
            What::Open => {
                if let Gate::Shut(socket) = &mut self.gate {
                    let socket = socket.take();
                    self.gate = Gate::Open(listen_again(socket, self.port).await?);
                }
            }
        }
        Ok(())
    }

    async fn drop_connections(&mut self) {
        let open = self.counters.open.load(Ordering::Relaxed);
        self.counters.dropped.fetch_add(open, Ordering::Relaxed);
        self.connections.shutdown().await;
    }

    fn carry(&mut self, client: TcpStream) {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let open = OpenConnection::count(&self.counters);
        let (upstream, line, busy) = (self.upstream, self.line.clone(), self.busy.clone());
        self.connections.spawn(async move {
            // The ways a connection ends are no news: the server dies, the client dies, the network breaks.
            let _ = connection(client, upstream, line, busy, &open.0).await;
        });
    }
}

/// Counts a connection for as long as its task lives.
struct OpenConnection(Arc<Counters>);

impl OpenConnection {
    fn count(counters: &Arc<Counters>) -> Self {
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(counters.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bind(port: u16) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4().context("a socket for the proxy")?;
    socket.set_reuseaddr(true).context("a socket for the proxy")?;
    socket
        .set_recv_buffer_size(SOCKET_BUFFER)
        .context("a socket for the proxy")?;
    socket
        .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .with_context(|| format!("binding the proxy to port {port}"))?;
    Ok(socket)
}

async fn listen_again(kept: Option<TcpSocket>, port: u16) -> Result<TcpListener> {
    if let Some(socket) = kept {
        return socket.listen(BACKLOG).context("listening again");
    }
    eventually(REBIND_LIMIT, || async {
        bind(port)?.listen(BACKLOG).context("listening again")
    })
    .await
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    line: watch::Receiver<Line>,
    busy: Busy,
    counters: &Counters,
) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    let server = match socket.connect(upstream).await {
        Ok(server) => server,
        Err(error) => {
            counters.unreachable.fetch_add(1, Ordering::Relaxed);
            // A stalled network does not tell that the server is gone.
            flowing(&mut line.clone(), Direction::ToClient).await;
            return Err(error);
        }
    };
    // Whoever measures a delay wants this one only.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pump(
            from_client,
            to_server,
            Direction::ToServer,
            (line.clone(), busy.clone()),
            counters
        ),
        pump(from_server, to_client, Direction::ToClient, (line, busy), counters),
    )?;
    Ok(())
}

/// Carries one direction to its end. Each piece waits for its own time, so a delay costs time and no throughput as
/// long as the line is not full.
fn pump<'a>(
    source: OwnedReadHalf,
    sink: OwnedWriteHalf,
    direction: Direction,
    (line, busy): (watch::Receiver<Line>, Busy),
    counters: &'a Counters,
) -> impl Future<Output = io::Result<()>> + 'a {
    let (sender, receiver) = mpsc::channel(PIECES_UNDER_WAY);
    async move {
        tokio::try_join!(
            take_in(source, direction, line.clone(), busy, sender),
            put_out(receiver, sink, direction, line, counters),
        )?;
        Ok(())
    }
}

type Piece = (Instant, Vec<u8>);

async fn take_in(
    mut source: OwnedReadHalf,
    direction: Direction,
    mut line: watch::Receiver<Line>,
    busy: Busy,
    pieces: mpsc::Sender<Piece>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        flowing(&mut line, direction).await;
        let most = match line.borrow().rate[direction as usize] {
            0 => PIECE,
            _ => SMALL_PIECE,
        };
        let length = source.read(&mut buffer[..most]).await?;
        // What arrives while the line stalls waits in the queue, and so does the end.
        if length == 0 {
            return Ok(());
        }
        let now = *line.borrow();
        let carried = now.carry(direction, length, &busy);
        let due = carried + now.delay[direction as usize];
        if pieces.send((due, buffer[..length].to_vec())).await.is_err() {
            return Ok(());
        }
        // What does not fit in front of the line stays where it comes from.
        if let Some(room) = carried.checked_sub(now.buffered(direction)) {
            tokio::time::sleep_until(room).await;
        }
    }
}

async fn put_out(
    mut pieces: mpsc::Receiver<Piece>,
    mut sink: OwnedWriteHalf,
    direction: Direction,
    mut line: watch::Receiver<Line>,
    counters: &Counters,
) -> io::Result<()> {
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        flowing(&mut line, direction).await;
        sink.write_all(&piece).await?;
        counters.bytes[direction as usize].fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    flowing(&mut line, direction).await;
    sink.shutdown().await
}

/// Returns when the line does not stall in this direction.
async fn flowing(line: &mut watch::Receiver<Line>, direction: Direction) {
    if line.wait_for(|line| !line.stalled[direction as usize]).await.is_err() {
        // The proxy is being dropped, and this task with it.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{bail, ensure};

    const LIMIT: Duration = Duration::from_secs(10);
    /// Nothing may arrive for so long.
    const SILENCE: Duration = Duration::from_millis(200);

    /// A server that sends back what it gets.
    struct Echo {
        address: SocketAddr,
        task: AbortHandle,
    }

    impl Echo {
        async fn start() -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let task = tokio::spawn(async move {
                let mut connections = JoinSet::new();
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    connections.spawn(async move {
                        let (mut reader, mut writer) = stream.split();
                        let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    });
                }
            });
            Self {
                address,
                task: task.abort_handle(),
            }
        }
    }

    impl Drop for Echo {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn connect(proxy: &FaultyProxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
    }

    async fn expect(stream: &mut TcpStream, expected: &[u8]) {
        let mut found = vec![0; expected.len()];
        let read = tokio::time::timeout(LIMIT, stream.read_exact(&mut found)).await;
        read.expect("bytes arrive").expect("the connection is open");
        assert_eq!(found, expected);
    }

    async fn expect_silence(stream: &mut TcpStream) {
        let read = tokio::time::timeout(SILENCE, stream.read_u8()).await;
        assert!(read.is_err(), "nothing was to arrive: {read:?}");
    }

    async fn expect_closed(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        // The end may be an orderly one or a reset.
        let end = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the connection is still open");
        assert!(rest.is_empty(), "{rest:?}");
    }

    #[tokio::test]
    async fn bytes_pass_and_are_counted() {
        let echo = Echo::start().await;
        let proxy = FaultyProxy::start(echo.address).await.unwrap();
        let mut stream = connect(&proxy).await;
        let large = vec![7; 3 << 20];
        let (mut reader, mut writer) = stream.split();
        let mut back = vec![0; large.len()];
        let (sent, read) = tokio::join!(writer.write_all(&large), reader.read_exact(&mut back));
        sent.unwrap();
        read.unwrap();
        assert!(back == large, "the same bytes come back");
        // The end of one direction passes, and what is still on its way arrives before it.
        stream.write_all(b"last").await.unwrap();
        stream.shutdown().await.unwrap();
        expect(&mut stream, b"last").await;
        expect_closed(&mut stream).await;
        eventually(LIMIT, || async {
            let stats = proxy.stats();
            let bytes = large.len() as u64 + 4;
            ensure!(
                stats
                    == ProxyStats {
                        accepted: 1,
                        bytes_to_server: bytes,
                        bytes_to_client: bytes,
                        ..ProxyStats::default()
                    },
                "{stats:?}"
            );
            Ok(())
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_cut_closes_and_refuses_until_it_is_healed() {
        let echo = Echo::start().await;
        let proxy = FaultyProxy::start(echo.address).await.unwrap();
        let mut stream = connect(&proxy).await;
        stream.write_all(b"before").await.unwrap();
        expect(&mut stream, b"before").await;
        for _ in 0..3 {
            proxy.cut().await.unwrap();
            expect_closed(&mut stream).await;
            let refused = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            // Once more changes nothing.
            proxy.cut().await.unwrap();
            proxy.heal().await.unwrap();
            stream = connect(&proxy).await;
            stream.write_all(b"after").await.unwrap();
            expect(&mut stream, b"after").await;
        }
        assert_eq!((proxy.stats().accepted, proxy.stats().dropped), (4, 3));
    }

    #[tokio::test]
    async fn dropped_connections_may_come_back_at_once() {
        let echo = Echo::start().await;
        let proxy = FaultyProxy::start(echo.address).await.unwrap();
        let mut streams = [connect(&proxy).await, connect(&proxy).await];
        for stream in &mut streams {
            stream.write_all(b"x").await.unwrap();
            expect(stream, b"x").await;
        }
        proxy.drop_connections().await.unwrap();
        for stream in &mut streams {
            expect_closed(stream).await;
        }
        let mut again = connect(&proxy).await;
        again.write_all(b"again").await.unwrap();
        expect(&mut again, b"again").await;
        let stats = proxy.stats();
        assert_eq!((stats.accepted, stats.open, stats.dropped), (3, 1, 2));
    }

    #[tokio::test]
    async fn a_delay_holds_back_each_direction_by_itself() {
        let echo = Echo::start().await;
        let proxy = FaultyProxy::start(echo.address).await.unwrap();
        let mut stream = connect(&proxy).await;
        proxy.delay(Direction::ToServer, Duration::from_millis(100));
        proxy.delay(Direction::ToClient, Duration::from_millis(50));
        let started = Instant::now();
        for round in 0..20 {
            stream.write_all(&[round; 100]).await.unwrap();
        }
        for round in 0..20 {
            expect(&mut stream, &[round; 100]).await;
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(150), "too early: {took:?}");
        assert!(
            took < LIMIT,
            "pieces wait side by side, not one after the other: {took:?}"
        );
        proxy.heal().await.unwrap();
        stream.write_all(b"at once").await.unwrap();
        expect(&mut stream, b"at once").await;
    }

    #[tokio::test]
    async fn a_limit_holds_for_all_connections_together_and_what_waits_is_bounded() {
        const RATE: u64 = 400_000;
        let echo = Echo::start().await;
        let proxy = FaultyProxy::start(echo.address).await.unwrap();
        let mut streams = [connect(&proxy).await, connect(&proxy).await];
        proxy.limit(Direction::ToClient, RATE);
        let started = Instant::now();
        let bytes = vec![7; 100_000];
        let copies = streams.iter_mut().map(|stream| async {
            let (mut reader, mut writer) = stream.split();
            let mut back = vec![0; bytes.len()];
            let (sent, read) = tokio::join!(writer.write_all(&bytes), reader.read_exact(&mut back));
            sent.unwrap();
            read.unwrap();
        });
        futures::future::join_all(copies).await;
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(490), "too fast: {took:?}");
        assert!(took < LIMIT, "{took:?}");
        // More than the buffers hold: what is in front of the line stays there when the limit goes.
        let mut stream = connect(&proxy).await;
        proxy.limit(Direction::ToClient, 1);
        proxy.limit(Direction::ToServer, 1);
        let large = vec![7; 32 << 20];
        let written = tokio::time::timeout(SILENCE, stream.write_all(&large)).await;
        assert!(written.is_err(), "32 MiB fit in front of a slow line");
    }

    #[tokio::test]
    async fn a_stall_swallows_one_direction_or_both_and_keeps_connections_open() {
        let echo = Echo::start().await;
        let proxy = FaultyProxy::start(echo.address).await.unwrap();
        for directions in [&Direction::BOTH[..], &[Direction::ToServer], &[Direction::ToClient]] {
            let before = proxy.stats().bytes_to_server;
            let mut stream = connect(&proxy).await;
            stream.write_all(b"1").await.unwrap();
            expect(&mut stream, b"1").await;
            proxy.stall(directions.iter().copied());
            stream.write_all(b"2").await.unwrap();
            expect_silence(&mut stream).await;
            let mut newcomer = connect(&proxy).await;
            newcomer.write_all(b"3").await.unwrap();
            expect_silence(&mut newcomer).await;
            let reached = proxy.stats().bytes_to_server - before;
            let expected = if directions.contains(&Direction::ToServer) {
                1
            } else {
                3
            };
            assert_eq!(reached, expected, "{directions:?}");
            proxy.heal().await.unwrap();
            expect(&mut stream, b"2").await;
            expect(&mut newcomer, b"3").await;
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_closes_the_connection() {
        let echo = Echo::start().await;
        let proxy = FaultyProxy::start(echo.address).await.unwrap();
        let address = echo.address;
        drop(echo);
        eventually(LIMIT, || async {
            match TcpStream::connect(address).await {
                Ok(_) => bail!("the server is still there"),
                Err(_) => Ok(()),
            }
        })
        .await
        .unwrap();
        expect_closed(&mut connect(&proxy).await).await;
        // In a stalled network nobody tells.
        proxy.stall(Direction::BOTH);
        let mut waiting = connect(&proxy).await;
        expect_silence(&mut waiting).await;
        proxy.heal().await.unwrap();
        expect_closed(&mut waiting).await;
        assert_eq!(proxy.stats().unreachable, 2);
    }

    #[tokio::test]
    async fn dropping_the_proxy_ends_everything() {
        let echo = Echo::start().await;
        let proxy = FaultyProxy::start(echo.address).await.unwrap();
        let port = proxy.port();
        let mut stream = connect(&proxy).await;
        stream.write_all(b"x").await.unwrap();
        expect(&mut stream, b"x").await;
        drop(proxy);
        expect_closed(&mut stream).await;
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    }
}
