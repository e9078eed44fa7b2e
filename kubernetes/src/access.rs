//! The rights of this process at the API server.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, Resource};

/// Whether this process may list and watch objects of kind `K` in every namespace, by a SelfSubjectAccessReview for each.
///
/// # Errors
///
/// If the API server does not say.
pub async fn may_watch<K: Resource<DynamicType = ()>>(client: &Client) -> kube::Result<bool> {
    for verb in ["list", "watch"] {
        let attributes = ResourceAttributes {
            group: Some(K::group(&()).into_owned()),
            resource: Some(K::plural(&()).into_owned()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let answer = Api::all(client.clone()).create(&Default::default(), &review).await?;
        if !answer.status.is_some_and(|status| status.allowed) {
            return Ok(false);
        }
    }
    Ok(true)
}
