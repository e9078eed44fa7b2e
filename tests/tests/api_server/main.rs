//! What controllers rely on an API server to do. The same tests run against a real one, if `KUBECONFIG` names it:
//!
//! ```sh
//! cargo test -p pilotlight-tests --test api_server                                # against tests/src/cluster/api
//! KUBECONFIG=~/.kube/config cargo test -p pilotlight-tests --test api_server      # against a cluster
//! ```

mod apply;
mod faults;
mod kinds;
mod kubectl;
mod lifecycle;
mod lists;
mod patches;
mod scale;
mod support;
mod watches;
mod writes;
