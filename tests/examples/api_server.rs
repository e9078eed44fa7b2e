//! The API server of the tests by itself, to try it with kubectl:
//!
//! ```sh
//! cargo run -p pilotlight-tests --example api_server      # prints the KUBECONFIG to use; ends with Ctrl-C
//! ```

use pilotlight_tests::cluster::api::ApiServer;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = ApiServer::start().await;
    println!("export KUBECONFIG={}", server.kubeconfig().display());
    tokio::signal::ctrl_c().await.expect("a signal to wait for");
    for request in server.log().requests() {
        println!("{} {}", request.status, request.line());
    }
}
