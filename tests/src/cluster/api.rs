//! A Kubernetes API server in this process, over real HTTP: lists and watches, writes with conflicts and validation,
//! server-side apply, scale and status, finalizers and garbage collection, as controllers and kubectl know them.
//!
//! ```
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube::api::{Api, PostParams};
//! use pilotlight_tests::cluster::api::ApiServer;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let server = ApiServer::start().await;
//! let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
//! let mut map = ConfigMap::default();
//! map.metadata.name = Some("settings".into());
//! maps.create(&PostParams::default(), &map).await.expect("created");
//! assert_eq!(server.log().writes()[0].line(), "create configmaps default/settings");
//! assert!(server.get::<ConfigMap>("default", "settings").is_some());
//! # });
//! ```
//!
//! What differs from a real one: no authentication, no admission, no controllers but the garbage collector and the one of
//! namespaces, one version of each kind, no schemas but for how lists merge, and of defaults and validation what
//! controllers come across. A kind that is taken away by deleting its CustomResourceDefinition takes its objects along
//! without telling their watches.

mod call;
mod collect;
mod connections;
mod defaults;
mod definition;
mod delete;
mod discovery;
mod failure;
mod faults;
mod kinds;
mod list;
mod log;
mod merge;
mod openapi;
mod patch;
mod proxy;
mod scale;
mod selector;
mod serve;
mod shape;
mod store;
mod table;
mod validate;
mod watch;
mod write;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use kube::{Client, Config, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use call::Verb;
pub use definition::{Definition, PrinterColumn, ScalePaths};
pub use faults::{Faults, Outage, Requests};
pub use log::{Log, Request};

use super::addresses::AddressRange;
use serve::Service;
use store::{Key, Store};

/// A running server. It ends when it is dropped.
pub struct ApiServer {
    address: SocketAddr,
    service: Service,
    folder: TempDir,
    _stop: oneshot::Sender<()>,
}

impl ApiServer {
    /// Starts a server on a free port of 127.0.0.1, on a thread of its own: a test that blocks does not stop it. It has
    /// the namespaces `default`, `kube-system` and `knative-serving`.
    ///
    /// # Panics
    ///
    /// If there is no port, no thread, or no place for a file.
    #[expect(
        clippy::unused_async,
        reason = "a server that has to wait for its start would be the same to tests"
    )]
    pub async fn start() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("an address");
        let addresses = AddressRange::from_env().expect("a range of addresses for Services");
        let store = Arc::new(Mutex::new(Store::new(kinds::built_ins(), addresses)));
        let service = Service {
            faults: Faults::new(Arc::clone(&store)),
            log: Log::default(),
            access: Arc::new(Mutex::new(Box::new(|_, _| true))),
            store,
        };
        let (stop, stopped) = oneshot::channel();
        let served = service.clone();
        let serve = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::spawn(collect::run(Arc::clone(&served.store)));
                tokio::select! {
                    () = connections::accept(listener, served) => {}
                    _ = stopped => {}
                }
            });
        };
        thread::Builder::new().name("api-server".into()).spawn(serve).expect("a thread");
        let server = Self { address, service, folder: TempDir::new().expect("a folder"), _stop: stop };
        for name in ["default", "kube-system", "knative-serving"] {
            server.add(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}));
        }
        server
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of this server, with `default` as its namespace.
    ///
    /// # Panics
    ///
    /// If the client cannot be made.
    pub fn client(&self) -> Client {
        let mut config = Config::new(self.url().parse().expect("a URL"));
        config.read_timeout = None;
        Client::try_from(config).expect("a client")
    }

    /// A file for `KUBECONFIG` of other processes.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        let named = |kind: &str, value: Value| json!([{"name": "test", kind: value}]);
        let config = json!({
            "kind": "Config",
            "apiVersion": "v1",
            "clusters": named("cluster", json!({"server": self.url()})),
            "users": named("user", json!({})),
            "contexts": named("context", json!({"cluster": "test", "user": "test", "namespace": "default"})),
            "current-context": "test",
        });
        fs::write(&path, config.to_string()).expect("a file that can be written");
        path
    }

    /// Serves one more kind.
    pub fn define(&self, definition: Definition) {
        self.service.store.lock().define(definition);
    }

    /// What goes wrong, on demand.
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }

    /// The requests that reached it.
    pub fn log(&self) -> &Log {
        &self.service.log
    }

    /// Lets SelfSubjectAccessReviews be answered so: verb, and kind such as `deployments.apps`.
    pub fn allow(&self, is_allowed: impl Fn(&str, &str) -> bool + Send + 'static) {
        *self.service.access.lock() = Box::new(is_allowed);
    }

    /// The version of the last change of anything.
    pub fn revision(&self) -> u64 {
        self.service.store.lock().revision()
    }

    /// An object, read without a request; an empty namespace for kinds without.
    ///
    /// # Panics
    ///
    /// If it is no `K`.
    pub fn get<K: Resource<DynamicType = ()> + DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<K> {
        let object = self.service.store.lock().get(&id_of::<K>(), &Key::new(namespace, name))?;
        Some(read(&object.value))
    }

    /// All objects of a kind, read without a request, in the order of namespace and name.
    ///
    /// # Panics
    ///
    /// If one is no `K`, or the kind is not served.
    pub fn objects<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<K> {
        let store = self.service.store.lock();
        let table = store.table(&id_of::<K>()).expect("a kind that is served");
        table.objects("", None).map(|(_, object)| read(&object.value)).collect()
    }

    /// Creates an object without a request, with the status that it is given: validated and completed, but not logged. For
    /// objects in a namespace, it has to say which. Returns it as it is stored.
    ///
    /// # Panics
    ///
    /// If the server refuses it.
    pub fn add(&self, object: Value) -> Value {
        let mut store = self.service.store.lock();
        let definition = store
            .tables()
            .map(|table| &table.definition)
            .find(|each| {
                object["kind"] == each.kind.as_str() && object["apiVersion"] == each.api_version().as_str()
            })
            .cloned()
            .expect("a kind that is served");
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let status = object["status"].clone();
        let mut written = |object: Value, subresource: &'static str| {
            let writer = merge::managers::Writer { manager: "tests", subresource };
            let (definition, id) = (definition.clone(), definition.id());
            let mut writing = write::Writing { store: &mut store, definition, id, writer, is_dry_run: false };
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let done = match subresource {
                "" => writing.create(&namespace, object),
                _ => writing.update(&Key::new(&namespace, &name), object),
            };
            match done {
                Ok(written) => written.object().value.clone(),
                Err(refused) => panic!("refused: {}", refused.status.message),
            }
        };
        let mut created = written(object, "");
        if status.is_null() {
            return created;
        }
        created["status"] = status;
        written(created, "status")
    }

    /// Waits until `condition` gives a value, looking after each change of anything, and fails the test if that takes longer
    /// than `within`.
    ///
    /// # Panics
    ///
    /// If it takes longer.
    pub async fn wait_until<T>(
        &self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Self) -> Option<T>,
    ) -> T {
        let mut changes = self.service.store.lock().changes();
        let met = async {
            loop {
                changes.borrow_and_update();
                if let Some(value) = condition(self) {
                    return value;
                }
                changes.changed().await.expect("the store is kept by the server");
            }
        };
        match tokio::time::timeout(within, met).await {
            Ok(value) => value,
            Err(_) => panic!("not within {within:?}: {what}"),
        }
    }
}

fn id_of<K: Resource<DynamicType = ()>>() -> String {
    definition::id(&K::group(&()), &K::plural(&()))
}

fn read<K: DeserializeOwned>(object: &Value) -> K {
    K::deserialize(object).expect("an object of the kind that is asked for")
}
