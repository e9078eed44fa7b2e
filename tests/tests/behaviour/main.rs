//! Cases that users of Knative's data plane rely on, at the real binaries: the cases of `docs/behaviour.md` that no test
//! closer to the code proves, and the proof that every test that page names is there.

mod forwarding;
mod logs;
mod pods;
mod table;
