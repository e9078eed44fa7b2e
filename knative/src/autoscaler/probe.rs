//! The probe before zero: whether it is an activator that answers at a revision's public address. Only then may the last
//! pods go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use pilotlight_core::RevisionId;
use pilotlight_net::headers::{ACTIVATOR, AUTOSCALER_USER_AGENT, NETWORK_PROBE};
use pilotlight_net::once::{self, Get};
use tokio::time::{Instant, interval, sleep};
use tracing::debug;

/// Finds the address of a host and a port.
pub type Resolve = Arc<dyn Fn(String, u16) -> BoxFuture<'static, std::io::Result<SocketAddr>> + Send + Sync>;

/// Asks the system's resolver.
pub fn dns() -> Resolve {
    Arc::new(|host, port| {
        Box::pin(async move {
            let mut addresses = tokio::net::lookup_host((host.as_str(), port)).await?;
            addresses.next().ok_or_else(|| std::io::Error::other("the name has no address"))
        })
    })
}

/// Probes under way: one a revision, and a pause after each.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    under_way: Mutex<BTreeMap<Arc<RevisionId>, ()>>,
}

/// A probe. While it is there, none other of its revision begins.
#[derive(Debug)]
pub(crate) struct Turn {
    probes: Arc<Probes>,
    id: Arc<RevisionId>,
}

impl Probes {
    /// The turn of a revision; `None`: it is being probed, or was a moment ago.
    pub(crate) fn turn(self: &Arc<Self>, id: &Arc<RevisionId>) -> Option<Turn> {
        let is_new = self.under_way.lock().insert(Arc::clone(id), ()).is_none();
        is_new.then(|| Turn { probes: Arc::clone(self), id: Arc::clone(id) })
    }
}

impl Turn {
    /// Asks once a second until an activator answers. `Err`: none has for 45 seconds, and what came instead.
    pub(crate) async fn ask(&self, resolve: &Resolve, host: &str, port: u16) -> Result<(), String> {
        let deadline = Instant::now() + ASK_FOR;
        let mut times = interval(ASK_EVERY);
        loop {
            times.tick().await;
            let answer = ask_once(resolve, host, port).await;
            match answer {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(error) => debug!(revision = %self.id, host, %error, "No activator yet"),
            }
        }
    }

    /// Ends the turn, a moment later.
    pub(crate) async fn pause(self) {
        sleep(PAUSE).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.probes.under_way.lock().remove(&self.id);
    }
}

async fn ask_once(resolve: &Resolve, host: &str, port: u16) -> Result<(), String> {
    let address = resolve(host.to_owned(), port).await.map_err(|error| format!("{host}: {error}"))?;
    let authority = if port == 80 { host.to_owned() } else { format!("{host}:{port}") };
    let authority = HeaderValue::try_from(authority).map_err(|_| format!("`{host}` is no host name"))?;
    // A connection of its own: a kept one may still lead to a pod.
    let question = Get::new(PATH)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, HeaderValue::from_static(AUTOSCALER_USER_AGENT))
        .header(NETWORK_PROBE, HeaderValue::from_static(ACTIVATOR))
        .within(ASK_EVERY)
        .at_most(MAX_ANSWER_BYTES);
    let answer = once::get(address, &question).await.map_err(|error| error.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(format!("it answered {}", answer.status));
    }
    match answer.body {
        Ok(body) if body == ACTIVATOR.as_bytes() => Ok(()),
        Ok(_) => Err("something else than an activator answered".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Knative's path has two slashes, and its own activators and ingresses see it as it is.
const PATH: &str = "//healthz";
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_FOR: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_secs(1);
const MAX_ANSWER_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection after the other, with these statuses and bodies. Returns its address, and what it was asked.
    async fn answering(
        answers: Vec<(&'static str, &'static str)>,
    ) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let mut questions = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    head.push(char::from(stream.read_u8().await.unwrap()));
                }
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                questions.push(head.to_lowercase());
            }
            questions
        });
        (address, asked)
    }

    fn always(address: SocketAddr) -> Resolve {
        Arc::new(move |_, _| Box::pin(std::future::ready(Ok(address))))
    }

    #[tokio::test]
    async fn only_an_activators_own_answer_counts() {
        let table = [
            ("200 OK", "activator", Ok(())),
            ("200 OK", "queue", Err("something else than an activator answered")),
            ("200 OK", "activator\n", Err("something else than an activator answered")),
            ("400 Bad Request", "activator", Err("it answered 400 Bad Request")),
            ("503 Service Unavailable", "", Err("it answered 503 Service Unavailable")),
        ];
        let (address, asked) = answering(table.map(|(status, body, _)| (status, body)).to_vec()).await;
        for (status, body, expected) in table {
            let answer = ask_once(&always(address), "hello-1.ns.svc.cluster.local", 80).await;
            assert_eq!(answer, expected.map_err(str::to_owned), "{status} {body:?}");
        }
        let questions = asked.await.unwrap();
        let question = &questions[0];
        assert!(question.starts_with("get //healthz http/1.1\r\n"), "{question}");
        for line in [
            "host: hello-1.ns.svc.cluster.local",
            "user-agent: knative-autoscaling-probe",
            "k-network-probe: activator",
            "connection: close",
        ] {
            assert!(question.contains(&format!("\r\n{line}\r\n")), "{line}: {question}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_revision_is_probed_by_one_at_a_time_for_a_while_and_then_there_is_a_pause() {
        let nowhere: Resolve =
            Arc::new(|_, _| Box::pin(std::future::ready(Err(std::io::Error::other("no such name")))));
        let (probes, id) = (Arc::<Probes>::default(), Arc::new(RevisionId::new("ns", "hello-1")));
        let turn = probes.turn(&id).unwrap();
        assert!(probes.turn(&id).is_none());
        assert!(probes.turn(&Arc::new(RevisionId::new("ns", "other"))).is_some());
        let began = Instant::now();
        let answer = turn.ask(&nowhere, "hello-1.ns", 80).await;
        assert_eq!(answer, Err("hello-1.ns: no such name".to_owned()));
        assert_eq!(began.elapsed(), Duration::from_secs(45));
        let pause = tokio::spawn(turn.pause());
        tokio::task::yield_now().await;
        assert!(probes.turn(&id).is_none(), "it was probed a moment ago");
        pause.await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(46));
        assert!(probes.turn(&id).is_some());
    }
}
