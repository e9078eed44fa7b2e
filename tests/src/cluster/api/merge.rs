//! How objects are changed in part: strategic merge patches, server-side apply, and who owns which field.

pub(crate) mod apply;
pub(crate) mod fields;
pub(crate) mod managers;
pub(crate) mod schema;
pub(crate) mod strategic;
