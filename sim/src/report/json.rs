//! A page as JSON. Its form is published in `sim/schema/outcome.v1.json`, and versioned by the `schema` field.

use serde::Serialize;

use crate::outcome::SCHEMA;
use crate::report::Page;

/// The page as one JSON document, indented, with a line end.
pub fn page(page: &Page) -> String {
    let document = Document { schema: SCHEMA, page };
    // Strings, numbers and maps with keys of text: there is nothing in a page that JSON could refuse.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    #[serde(flatten)]
    page: &'a Page,
}
