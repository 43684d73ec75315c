//! Operators and functions of `json` and `jsonb`. The operators are planned as calls of PostgreSQL's own
//! functions for them.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;

use super::json_flat::normalized;
use super::json_value::{Json, Parts, Step, part, parts, quoted, read};
use super::{Entry, Gives, Nulls, Row, Ty, int4, invalid, strict, text, texts, variadic};
use crate::error::{Error, SqlState};
use crate::types::TYPE_KEY;

const fn like(
    name: &'static str,
    overloads: &'static [&'static [Ty]],
    variadic: bool,
    eval: fn(&Row<'_>) -> Result<ScalarValue, Error>,
) -> Entry {
    Entry {
        name,
        overloads,
        variadic,
        gives: Gives::JsonLike(0),
        nulls: Nulls::Strict,
        eval,
    }
}

pub(super) const LIST: &[Entry] = &[
    like("json_object_field", &[&[Ty::Json, Ty::Text]], false, |r| {
        field(r, false)
    }),
    like("json_array_element", &[&[Ty::Json, Ty::Int4]], false, |r| {
        element(r, false)
    }),
    strict(
        "json_object_field_text",
        &[&[Ty::Json, Ty::Text]],
        Ty::Text,
        |r| field(r, true),
    ),
    strict(
        "json_array_element_text",
        &[&[Ty::Json, Ty::Int4]],
        Ty::Text,
        |r| element(r, true),
    ),
    like("json_path", &[&[Ty::Json, Ty::TextList]], false, |r| {
        path(r, false)
    }),
    strict(
        "json_path_text",
        &[&[Ty::Json, Ty::TextList]],
        Ty::Text,
        |r| path(r, true),
    ),
    like("json_extract_path", &[&[Ty::Json, Ty::Text]], true, |r| {
        path(r, false)
    }),
    jsonb("jsonb_extract_path", &[&[Ty::Jsonb, Ty::Text]], true, |r| {
        path(r, false)
    }),
    spread_text("json_extract_path_text"),
    spread_text("jsonb_extract_path_text"),
    strict("json_typeof", &[&[Ty::Json]], Ty::Text, kind),
    strict("jsonb_typeof", &[&[Ty::Jsonb]], Ty::Text, kind),
    strict("json_array_length", &[&[Ty::Json]], Ty::Int4, length),
    strict("jsonb_array_length", &[&[Ty::Jsonb]], Ty::Int4, length),
    strict(
        "jsonb_contains",
        &[&[Ty::Jsonb, Ty::Jsonb]],
        Ty::Bool,
        |r| Ok(bool(value(r, 0)?.contains(&value(r, 1)?))),
    ),
    strict(
        "jsonb_contained",
        &[&[Ty::Jsonb, Ty::Jsonb]],
        Ty::Bool,
        |r| Ok(bool(value(r, 1)?.contains(&value(r, 0)?))),
    ),
    strict("jsonb_exists", &[&[Ty::Jsonb, Ty::Text]], Ty::Bool, |r| {
        Ok(bool(exists(&value(r, 0)?, r.text(1))))
    }),
    strict(
        "jsonb_exists_any",
        &[&[Ty::Jsonb, Ty::TextList]],
        Ty::Bool,
        |r| {
            let all = value(r, 0)?;
            Ok(bool(keys(r, 1).iter().flatten().any(|k| exists(&all, k))))
        },
    ),
    strict(
        "jsonb_exists_all",
        &[&[Ty::Jsonb, Ty::TextList]],
        Ty::Bool,
        |r| {
            let all = value(r, 0)?;
            Ok(bool(keys(r, 1).iter().flatten().all(|k| exists(&all, k))))
        },
    ),
    strict(
        "jsonb_concat",
        &[&[Ty::Jsonb, Ty::Jsonb]],
        Ty::Jsonb,
        concat,
    ),
    strict(
        "jsonb_delete",
        &[
            &[Ty::Jsonb, Ty::Text],
            &[Ty::Jsonb, Ty::Int4],
            &[Ty::Jsonb, Ty::TextList],
        ],
        Ty::Jsonb,
        delete,
    ),
    strict(
        "jsonb_delete_path",
        &[&[Ty::Jsonb, Ty::TextList]],
        Ty::Jsonb,
        delete_path,
    ),
    strict(
        "jsonb_set",
        &[
            &[Ty::Jsonb, Ty::TextList, Ty::Jsonb],
            &[Ty::Jsonb, Ty::TextList, Ty::Jsonb, Ty::Bool],
        ],
        Ty::Jsonb,
        set,
    ),
    strict(
        "jsonb_insert",
        &[
            &[Ty::Jsonb, Ty::TextList, Ty::Jsonb],
            &[Ty::Jsonb, Ty::TextList, Ty::Jsonb, Ty::Bool],
        ],
        Ty::Jsonb,
        insert,
    ),
    strict("jsonb_pretty", &[&[Ty::Jsonb]], Ty::Text, |r| {
        let mut out = String::new();
        pretty(&value(r, 0)?, 0, &mut out);
        Ok(text(out))
    }),
    strict("json_strip_nulls", &[&[Ty::Json]], Ty::Json, |r| {
        Ok(text(compact(&without_nulls(read(r.text(0), "json")?))))
    }),
    strict("jsonb_strip_nulls", &[&[Ty::Jsonb]], Ty::Jsonb, |r| {
        Ok(text(without_nulls(value(r, 0)?).to_string()))
    }),
    strict("to_json", &[&[Ty::Any]], Ty::Json, |r| {
        Ok(text(shown(r, 0)?))
    }),
    strict("to_jsonb", &[&[Ty::Any]], Ty::Jsonb, |r| {
        Ok(text(normalized(&shown(r, 0)?)?))
    }),
    strict("array_to_json", &[&[Ty::AnyList]], Ty::Json, |r| {
        Ok(text(shown(r, 0)?))
    }),
    strict("row_to_json", &[&[Ty::Any]], Ty::Json, |r| {
        Ok(text(shown(r, 0)?))
    }),
    variadic("json_build_object", &[&[Ty::Any]], Ty::Json, |r| {
        Ok(text(built_object(r)?))
    }),
    variadic("jsonb_build_object", &[&[Ty::Any]], Ty::Jsonb, |r| {
        Ok(text(normalized(&built_object(r)?)?))
    }),
    variadic("json_build_array", &[&[Ty::Any]], Ty::Json, |r| {
        Ok(text(built_array(r)?))
    }),
    variadic("jsonb_build_array", &[&[Ty::Any]], Ty::Jsonb, |r| {
        Ok(text(normalized(&built_array(r)?)?))
    }),
    strict(
        "json_object",
        &[&[Ty::TextList], &[Ty::TextList, Ty::TextList]],
        Ty::Json,
        |r| Ok(text(paired(r)?)),
    ),
    strict(
        "jsonb_object",
        &[&[Ty::TextList], &[Ty::TextList, Ty::TextList]],
        Ty::Jsonb,
        |r| Ok(text(normalized(&paired(r)?)?)),
    ),
    // lists of what the functions of the same names without `_list` give as rows
    list("json_object_keys_list", Ty::TextList, object_keys),
    list("jsonb_object_keys_list", Ty::TextList, object_keys),
    list("json_each_values_list", Ty::JsonList, |r| each(r, false)),
    list("jsonb_each_values_list", Ty::JsonbList, |r| each(r, false)),
    list("json_each_texts_list", Ty::TextList, |r| each(r, true)),
    list("jsonb_each_texts_list", Ty::TextList, |r| each(r, true)),
    list("json_array_elements_list", Ty::JsonList, |r| {
        all_elements(r, false)
    }),
    list("jsonb_array_elements_list", Ty::JsonbList, |r| {
        all_elements(r, false)
    }),
    list("json_array_elements_text_list", Ty::TextList, |r| {
        all_elements(r, true)
    }),
    list("jsonb_array_elements_text_list", Ty::TextList, |r| {
        all_elements(r, true)
    }),
];

const fn jsonb(
    name: &'static str,
    overloads: &'static [&'static [Ty]],
    variadic: bool,
    eval: fn(&Row<'_>) -> Result<ScalarValue, Error>,
) -> Entry {
    Entry {
        gives: Gives::A(Ty::Jsonb),
        ..like(name, overloads, variadic, eval)
    }
}

const fn list(
    name: &'static str,
    gives: Ty,
    eval: fn(&Row<'_>) -> Result<ScalarValue, Error>,
) -> Entry {
    strict(name, &[&[Ty::Json]], gives, eval)
}

fn object_keys(row: &Row<'_>) -> Result<ScalarValue, Error> {
    members(row).map(|all| texts(all.into_iter().map(|(key, _)| Some(key))))
}

fn each(row: &Row<'_>, as_text: bool) -> Result<ScalarValue, Error> {
    let values = members(row)?.into_iter().map(|(_, value)| value);
    shown_parts(row, values, as_text)
}

fn all_elements(row: &Row<'_>, as_text: bool) -> Result<ScalarValue, Error> {
    shown_parts(row, elements(row)?.into_iter(), as_text)
}

fn shown_parts<'t>(
    row: &Row<'_>,
    parts: impl Iterator<Item = &'t str>,
    as_text: bool,
) -> Result<ScalarValue, Error> {
    let shown = parts.map(|part| match as_text {
        true => plain(row, part),
        false => kept(row, part).map(Some),
    });
    Ok(texts(shown.collect::<Result<Vec<_>, Error>>()?))
}

const fn spread_text(name: &'static str) -> Entry {
    Entry {
        gives: Gives::A(Ty::Text),
        ..like(name, &[&[Ty::Json, Ty::Text]], true, |r| path(r, true))
    }
}

const NULL: ScalarValue = ScalarValue::Utf8(None);

fn bool(value: bool) -> ScalarValue {
    ScalarValue::Boolean(Some(value))
}

fn value(row: &Row<'_>, i: usize) -> Result<Json, Error> {
    Ok(read(row.text(i), "jsonb")?.unique())
}

/// A part as the operator gives it: `json` as written, `jsonb` in its own form, text without quotes.
fn given(row: &Row<'_>, part: Option<&str>, as_text: bool) -> Result<ScalarValue, Error> {
    let Some(part) = part else { return Ok(NULL) };
    Ok(match as_text {
        true => ScalarValue::Utf8(plain(row, part)?),
        false => text(kept(row, part)?),
    })
}

fn is_jsonb(row: &Row<'_>) -> bool {
    row.tag(0) == Some("jsonb") || row.name.starts_with("jsonb")
}

fn kept(row: &Row<'_>, part: &str) -> Result<String, Error> {
    match is_jsonb(row) {
        true => normalized(part),
        false => Ok(part.to_owned()),
    }
}

fn plain(row: &Row<'_>, part: &str) -> Result<Option<String>, Error> {
    match (read(part, "json")?, is_jsonb(row)) {
        (Json::Null, _) => Ok(None),
        (Json::Text(text), _) => Ok(Some(text)),
        (other, true) => Ok(other.unique().as_text()),
        (_, false) => Ok(Some(part.to_owned())),
    }
}

fn field(row: &Row<'_>, as_text: bool) -> Result<ScalarValue, Error> {
    given(row, part(row.text(0), &Step::Key(row.text(1))), as_text)
}

fn element(row: &Row<'_>, as_text: bool) -> Result<ScalarValue, Error> {
    given(row, part(row.text(0), &Step::Index(row.int(1))), as_text)
}

/// Along a list of keys and places.
fn path(row: &Row<'_>, as_text: bool) -> Result<ScalarValue, Error> {
    let steps: Vec<Option<String>> = match row.ty(1) {
        DataType::List(_) => keys(row, 1),
        _ => (1..row.len())
            .map(|i| row.text_or_null(i).map(str::to_owned))
            .collect(),
    };
    let mut at = Some(row.text(0).trim());
    for step in steps {
        let (Some(json), Some(step)) = (at, step) else {
            return Ok(NULL);
        };
        at = match parts(json) {
            Some(Parts::Elements(_)) => step
                .trim()
                .parse()
                .ok()
                .and_then(|index| part(json, &Step::Index(index))),
            _ => part(json, &Step::Key(&step)),
        };
    }
    given(row, at, as_text)
}

/// The elements of a list of texts.
fn keys(row: &Row<'_>, i: usize) -> Vec<Option<String>> {
    let Some(list) = row.list(i) else {
        return Vec::new();
    };
    let Some(list) = list.as_string_opt::<i32>() else {
        return Vec::new();
    };
    list.iter().map(|k| k.map(str::to_owned)).collect()
}

fn kind(row: &Row<'_>) -> Result<ScalarValue, Error> {
    Ok(text(read(row.text(0), "json")?.kind()))
}

fn length(row: &Row<'_>) -> Result<ScalarValue, Error> {
    match read(row.text(0), "json")? {
        Json::List(elements) => int4(i64::try_from(elements.len()).unwrap_or(i64::MAX)),
        Json::Object(_) => Err(invalid("cannot get array length of a non-array")),
        _ => Err(invalid("cannot get array length of a scalar")),
    }
}

fn members<'r>(row: &'r Row<'_>) -> Result<Vec<(String, &'r str)>, Error> {
    let Some(Parts::Members(mut all)) = parts(row.text(0)) else {
        return Err(invalid("cannot take the members of what is not an object"));
    };
    if is_jsonb(row) {
        all.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
        all.reverse();
        all.dedup_by(|a, b| a.0 == b.0);
        all.reverse();
    }
    Ok(all)
}

fn elements<'r>(row: &'r Row<'_>) -> Result<Vec<&'r str>, Error> {
    match parts(row.text(0)) {
        Some(Parts::Elements(all)) => Ok(all),
        _ => Err(invalid("cannot take the elements of what is not an array")),
    }
}

fn exists(all: &Json, key: &str) -> bool {
    match all {
        Json::Object(members) => members.iter().any(|(k, _)| k == key),
        Json::List(elements) => elements
            .iter()
            .any(|e| matches!(e, Json::Text(t) if t == key)),
        Json::Text(text) => text == key,
        _ => false,
    }
}

fn concat(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let joined = match (value(row, 0)?, value(row, 1)?) {
        (Json::Object(mut one), Json::Object(other)) => {
            one.extend(other);
            Json::Object(one).unique()
        }
        (one, other) => {
            let list = |json| match json {
                Json::List(elements) => elements,
                other => vec![other],
            };
            let mut all = list(one);
            all.extend(list(other));
            Json::List(all)
        }
    };
    Ok(text(joined.to_string()))
}

fn delete(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let from = value(row, 0)?;
    if matches!(
        from,
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_)
    ) {
        return Err(invalid("cannot delete from scalar"));
    }
    let left = match (from, row.ty(1)) {
        (Json::List(mut elements), ty) if ty.is_integer() => {
            if let Some(at) = place(&elements, row.int(1)) {
                elements.remove(at);
            }
            Json::List(elements)
        }
        (Json::Object(_), ty) if ty.is_integer() => {
            return Err(invalid("cannot delete from object using integer index"));
        }
        (from, ty) => {
            let gone = match ty {
                DataType::List(_) => keys(row, 1),
                _ => vec![Some(row.text(1).to_owned())],
            };
            let goes = |key: &str| gone.iter().flatten().any(|g| g == key);
            match from {
                Json::Object(members) => {
                    Json::Object(members.into_iter().filter(|(k, _)| !goes(k)).collect())
                }
                Json::List(elements) => Json::List(
                    elements
                        .into_iter()
                        .filter(|e| !matches!(e, Json::Text(t) if goes(t)))
                        .collect(),
                ),
                other => other,
            }
        }
    };
    Ok(text(left.to_string()))
}

/// The place of an element counted from the start, or from the end when negative.
fn place(elements: &[Json], at: i64) -> Option<usize> {
    let length = i64::try_from(elements.len()).ok()?;
    let at = if at < 0 { length + at } else { at };
    (0..length)
        .contains(&at)
        .then(|| usize::try_from(at).ok())?
}

/// What is done at the end of a path.
enum Change {
    Delete,
    /// The value, and whether a missing key is made.
    Set(Json, bool),
    /// The value, and whether it comes behind the place.
    Insert(Json, bool),
}

fn delete_path(row: &Row<'_>) -> Result<ScalarValue, Error> {
    change(row, &Change::Delete)
}

fn set(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let create = row.len() < 4 || row.flag(3);
    change(row, &Change::Set(value(row, 2)?, create))
}

fn insert(row: &Row<'_>) -> Result<ScalarValue, Error> {
    let after = row.len() > 3 && row.flag(3);
    change(row, &Change::Insert(value(row, 2)?, after))
}

fn change(row: &Row<'_>, change: &Change) -> Result<ScalarValue, Error> {
    let mut json = value(row, 0)?;
    if matches!(
        json,
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_)
    ) {
        return Err(invalid(match change {
            Change::Delete => "cannot delete path in scalar",
            _ => "cannot set path in scalar",
        }));
    }
    let steps = keys(row, 1);
    let mut path = Vec::with_capacity(steps.len());
    for (at, step) in steps.into_iter().enumerate() {
        path.push(step.ok_or_else(|| {
            Error::refused(
                SqlState("22004"),
                format!("path element at position {} is null", at + 1),
            )
        })?);
    }
    apply(&mut json, &path, 1, change)?;
    Ok(text(json.unique().to_string()))
}

fn apply(json: &mut Json, path: &[String], position: usize, change: &Change) -> Result<(), Error> {
    let Some((step, rest)) = path.split_first() else {
        return Ok(());
    };
    match json {
        Json::Object(members) => {
            let found = members.iter().position(|(key, _)| key == step);
            match (found, rest.is_empty(), change) {
                (Some(at), true, Change::Delete) => {
                    members.remove(at);
                }
                (Some(at), true, Change::Set(new, _)) => members[at].1 = new.clone(),
                (Some(_), true, Change::Insert(..)) => {
                    return Err(invalid("cannot replace existing key")
                        .with_hint("jsonb_set replaces the value of a key"));
                }
                (None, true, Change::Set(new, true) | Change::Insert(new, _)) => {
                    members.push((step.clone(), new.clone()));
                }
                (Some(at), false, _) => apply(&mut members[at].1, rest, position + 1, change)?,
                (None, ..) => {}
            }
        }
        Json::List(elements) => {
            let index: i64 = step.trim().parse().map_err(|_| {
                Error::refused(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    format!("path element at position {position} is not an integer: \"{step}\""),
                )
            })?;
            let found = place(elements, index);
            match (found, rest.is_empty(), change) {
                (Some(at), true, Change::Delete) => {
                    elements.remove(at);
                }
                (Some(at), true, Change::Set(new, _)) => elements[at] = new.clone(),
                (Some(at), true, Change::Insert(new, after)) => {
                    elements.insert(at + usize::from(*after), new.clone());
                }
                (None, true, Change::Set(new, true) | Change::Insert(new, _)) => {
                    let at = if index < 0 { 0 } else { elements.len() };
                    elements.insert(at, new.clone());
                }
                (Some(at), false, _) => apply(&mut elements[at], rest, position + 1, change)?,
                (None, ..) => {}
            }
        }
        _ => {}
    }
    Ok(())
}

fn pretty(json: &Json, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        out.push('\n');
        out.push_str(&"    ".repeat(depth));
    };
    match json {
        Json::Object(members) => {
            out.push('{');
            for (at, (key, value)) in members.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                line(depth + 1, out);
                out.push_str(&quoted(key));
                out.push_str(": ");
                pretty(value, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
        Json::List(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                line(depth + 1, out);
                pretty(element, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn without_nulls(json: Json) -> Json {
    match json {
        Json::Object(members) => Json::Object(
            members
                .into_iter()
                .filter(|(_, value)| *value != Json::Null)
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Json::List(elements) => Json::List(elements.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Without any blank.
fn compact(json: &Json) -> String {
    match json {
        Json::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{}:{}", quoted(key), compact(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Json::List(elements) => {
            let elements: Vec<String> = elements.iter().map(compact).collect();
            format!("[{}]", elements.join(","))
        }
        other => other.to_string(),
    }
}

/// An argument as JSON; NULL is `null`.
fn shown(row: &Row<'_>, i: usize) -> Result<String, Error> {
    match (row.args.get(i), row.fields.get(i)) {
        (Some(array), Some(field)) => json_of(row, array, field, row.row),
        _ => Ok("null".to_owned()),
    }
}

pub(super) fn json_of(
    row: &Row<'_>,
    array: &ArrayRef,
    field: &Field,
    at: usize,
) -> Result<String, Error> {
    if array.is_null(at) {
        return Ok("null".to_owned());
    }
    let plain = || super::super::text::shown(array, field, at, row.zone);
    Ok(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(at).to_string(),
        ty if ty.is_numeric() => match plain()? {
            number if number.ends_with(['N', 'y']) => quoted(&number),
            number => number,
        },
        DataType::Utf8 if is_json(field) => array.as_string::<i32>().value(at).to_owned(),
        DataType::Timestamp(_, zone) => {
            let mut written = plain()?.replacen(' ', "T", 1);
            let offset = written
                .rfind(['+', '-'])
                .map_or(0, |sign| written.len() - sign);
            if zone.is_some() && offset == 3 {
                written.push_str(":00");
            }
            quoted(&written)
        }
        DataType::List(of) => {
            let values = array.as_list::<i32>().value(at);
            let all = (0..values.len())
                .map(|i| json_of(row, &values, of, i))
                .collect::<Result<Vec<_>, Error>>()?;
            format!("[{}]", all.join(","))
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let all = fields
                .iter()
                .zip(columns.columns())
                .enumerate()
                .map(|(i, (field, column))| {
                    // a row constructor's fields have no names of their own
                    let name = match field.name().strip_prefix('c') {
                        Some(n) if n.parse() == Ok(i) => format!("f{}", i + 1),
                        _ => field.name().clone(),
                    };
                    Ok(format!(
                        "{}:{}",
                        quoted(&name),
                        json_of(row, column, field, at)?
                    ))
                })
                .collect::<Result<Vec<_>, Error>>()?;
            format!("{{{}}}", all.join(","))
        }
        _ => quoted(&plain()?),
    })
}

fn is_json(field: &Field) -> bool {
    let tag = field.metadata().get(TYPE_KEY).map(String::as_str);
    matches!(tag, Some("json" | "jsonb"))
}

fn built_array(row: &Row<'_>) -> Result<String, Error> {
    let all = (0..row.len())
        .map(|i| shown(row, i))
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(format!("[{}]", all.join(", ")))
}

fn built_object(row: &Row<'_>) -> Result<String, Error> {
    if !row.len().is_multiple_of(2) {
        return Err(invalid("argument list must have even number of elements"));
    }
    let mut members = Vec::with_capacity(row.len() / 2);
    for i in (0..row.len()).step_by(2) {
        let composite = matches!(row.ty(i), DataType::List(_) | DataType::Struct(_));
        if composite || matches!(row.tag(i), Some("json" | "jsonb")) {
            return Err(invalid(
                "key value must be scalar, not array, composite, or json",
            ));
        }
        let key = row
            .shown(i)?
            .ok_or_else(|| invalid(format!("argument {} cannot be null", i + 1)))?;
        members.push(format!("{} : {}", quoted(&key), shown(row, i + 1)?));
    }
    Ok(format!("{{{}}}", members.join(", ")))
}

/// `json_object` of one list with keys and values in turn, or of two.
fn paired(row: &Row<'_>) -> Result<String, Error> {
    let first = keys(row, 0);
    let pairs: Vec<(Option<String>, Option<String>)> = match row.len() {
        1 if !first.len().is_multiple_of(2) => {
            return Err(Error::refused(
                SqlState("2202E"),
                "array must have even number of elements",
            ));
        }
        1 => first
            .chunks(2)
            .map(|p| (p[0].clone(), p[1].clone()))
            .collect(),
        _ => {
            let second = keys(row, 1);
            if first.len() != second.len() {
                return Err(Error::refused(
                    SqlState("2202E"),
                    "mismatched array dimensions",
                ));
            }
            first.into_iter().zip(second).collect()
        }
    };
    let mut members = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let key = key.ok_or_else(|| {
            Error::refused(SqlState("22004"), "null value not allowed for object key")
        })?;
        let value = value.map_or_else(|| "null".to_owned(), |v| quoted(&v));
        members.push(format!("{} : {value}", quoted(&key)));
    }
    Ok(format!("{{{}}}", members.join(", ")))
}
