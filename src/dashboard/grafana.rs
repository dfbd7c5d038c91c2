//! Boards as Grafana keeps them: one JSON file a board, made of nothing but the board.
//!
//! # Source
//! Grafana 11, "Dashboard JSON model" and "Panels" of its documentation; what is left out takes Grafana's defaults.
use super::{Board, Choice, Colour, Look, Panel, Query, Unit};
use serde_json::{Value as Json, json};

/// Version of the model that Grafana 11 writes; later ones migrate it when they load it.
const SCHEMA: u32 = 39;
/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;
/// Hues of a panel's queries, told apart by people of every colour vision (Okabe and Ito); dashes tell them apart too.
const HUES: [&str; 5] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"];

/// File names and texts of all boards.
pub fn files() -> Vec<(String, String)> {
    super::boards().iter().map(|board| (format!("{}.json", board.name), text(board))).collect()
}

fn text(board: &Board) -> String {
    serde_json::to_string_pretty(&json(board)).expect("a board has string keys") + "\n"
}

/// The board as Grafana takes it.
pub fn json(board: &Board) -> Json {
    let (mut places, mut panels) = (Places::default(), Vec::new());
    for (id, shown) in (1..).zip(&board.panels) {
        panels.push(panel(id, shown, places.next(shown.look)));
    }
    json!({
        "uid": format!("isthmus-{}", board.name),
        "title": board.title,
        "description": board.about,
        "tags": ["isthmus"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "graphTooltip": 1,
        "links": [{"type": "dashboards", "title": "isthmus", "tags": ["isthmus"], "asDropdown": true, "keepTime": true}],
        "templating": {"list": variables(board.choices)},
        "panels": panels,
    })
}

/// Lays panels side by side, row after row.
#[derive(Default)]
struct Places {
    x: u32,
    y: u32,
    /// Height of the row that is filled.
    height: u32,
}

impl Places {
    fn next(&mut self, look: Look) -> Json {
        let (w, h) = match look {
            Look::Number => (6, 5),
            Look::Lines | Look::Heatmap => (12, 8),
            Look::Table | Look::States => (24, 8),
        };
        if self.x + w > COLUMNS {
            (self.x, self.y, self.height) = (0, self.y + self.height, 0);
        }
        let place = json!({"x": self.x, "y": self.y, "w": w, "h": h});
        (self.x, self.height) = (self.x + w, self.height.max(h));
        place
    }
}

fn datasource() -> Json {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn variables(choices: &[Choice]) -> Vec<Json> {
    let source = json!({"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"});
    let pages = "https://example.org/isthmus/docs";
    let runbooks = json!({
        "name": "docs", "label": "Pages at", "type": "textbox", "query": pages,
        "current": {"text": pages, "value": pages},
    });
    let chosen = choices.iter().map(|choice| {
        let (name, label) = match choice {
            Choice::Bucket => ("bucket", "Bucket"),
            Choice::Peer => ("peer", "Peer"),
        };
        // Every peer answers or does not; a bucket has a link.
        let of = match choice {
            Choice::Bucket => "isthmus_link_state",
            Choice::Peer => "isthmus_peer_up",
        };
        let query = format!("label_values({of}, {name})");
        json!({
            "name": name, "label": label, "type": "query", "datasource": datasource(),
            "query": {"query": query, "refId": name}, "definition": query,
            "refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        })
    });
    [source].into_iter().chain(chosen).chain([runbooks]).collect()
}

fn panel(id: u32, panel: &Panel, place: Json) -> Json {
    let targets: Vec<Json> = ('A'..).zip(&panel.queries).map(|(name, query)| target(name, query, panel.look)).collect();
    let mut made = json!({
        "id": id,
        "type": kind(panel.look),
        "title": panel.title,
        "description": format!("What to do: {}\n\nMore: docs/{}", panel.todo, panel.page),
        "links": [{"title": "What to do", "url": format!("${{docs}}/{}", panel.page), "targetBlank": true}],
        "gridPos": place,
        "datasource": datasource(),
        "fieldConfig": {"defaults": defaults(panel), "overrides": overrides(panel)},
        "options": options(panel.look),
        "targets": targets,
    });
    if let Some(over) = panel.over {
        made["timeFrom"] = over.into();
    }
    if panel.look == Look::Table {
        made["transformations"] = columns(&panel.queries);
    }
    made
}

fn kind(look: Look) -> &'static str {
    match look {
        Look::Number => "stat",
        Look::Lines => "timeseries",
        Look::Table => "table",
        Look::Heatmap => "heatmap",
        Look::States => "state-timeline",
    }
}

fn target(name: char, query: &Query, look: Look) -> Json {
    let format = match look {
        Look::Table => "table",
        Look::Heatmap => "heatmap",
        _ => "time_series",
    };
    let is_instant = matches!(look, Look::Table | Look::Number);
    let mut target = json!({
        "refId": name.to_string(),
        "datasource": datasource(),
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        "format": format,
        "instant": is_instant,
        "range": !is_instant,
    });
    if query.exemplars {
        target["exemplar"] = true.into();
    }
    target
}

fn defaults(panel: &Panel) -> Json {
    let by_steps = !matches!(panel.look, Look::Lines);
    let mut defaults = json!({
        "unit": unit(panel.unit),
        "color": {"mode": if by_steps { "thresholds" } else { "palette-classic" }},
        "thresholds": {"mode": "absolute", "steps": steps(panel)},
        "mappings": mappings(panel),
    });
    if let Some(text) = panel.absent {
        defaults["noValue"] = text.into();
    }
    if panel.look == Look::Lines {
        // Nothing is connected over a gap: what was not scraped is not known.
        let has_steps = !panel.steps.1.is_empty();
        defaults["custom"] = json!({
            "lineWidth": 2, "fillOpacity": 0, "spanNulls": false, "showPoints": "auto",
            "thresholdsStyle": {"mode": if has_steps { "dashed" } else { "off" }},
        });
    }
    defaults
}

fn steps(panel: &Panel) -> Vec<Json> {
    let (first, rest) = &panel.steps;
    let first = json!({"color": colour(*first), "value": null});
    [first].into_iter().chain(rest.iter().map(|(from, hue)| json!({"color": colour(*hue), "value": from}))).collect()
}

fn mappings(panel: &Panel) -> Vec<Json> {
    let word = |(index, (value, text, hue)): (usize, &(f64, &str, Colour))| {
        (value.to_string(), json!({"text": text, "color": colour(*hue), "index": index}))
    };
    let words: serde_json::Map<String, Json> = panel.words.iter().enumerate().map(word).collect();
    let mut mappings = Vec::new();
    if !words.is_empty() {
        mappings.push(json!({"type": "value", "options": words}));
    }
    if let Some((from, text)) = panel.from_on {
        mappings.push(json!({"type": "range", "options": {"from": from, "to": null, "result": {"text": text}}}));
    }
    mappings
}

/// Hue and dash of each query's lines; the unit of each column.
fn overrides(panel: &Panel) -> Vec<Json> {
    let of_query = |(place, (name, query)): (usize, (char, &Query))| match (panel.look, query.unit) {
        (Look::Lines, _) => {
            let dash = match place {
                0 => json!({"fill": "solid"}),
                nth => json!({"fill": "dash", "dash": [10, 4 * nth]}),
            };
            Some(json!({
                "matcher": {"id": "byFrameRefID", "options": name.to_string()},
                "properties": [
                    {"id": "color", "value": {"mode": "shades", "fixedColor": HUES[place % HUES.len()]}},
                    {"id": "custom.lineStyle", "value": dash},
                ],
            }))
        }
        (_, Some(own)) => Some(json!({
            "matcher": {"id": "byName", "options": query.legend},
            "properties": [{"id": "unit", "value": unit(own)}],
        })),
        _ => None,
    };
    ('A'..).zip(&panel.queries).enumerate().filter_map(of_query).collect()
}

/// One row for the same labels, one column a query.
fn columns(queries: &[Query]) -> Json {
    // With one query alone Grafana does not number the column.
    let name = |letter: char| if queries.len() == 1 { "Value".into() } else { format!("Value #{letter}") };
    let names: serde_json::Map<String, Json> =
        ('A'..).zip(queries).map(|(letter, query)| (name(letter), query.legend.into())).collect();
    json!([
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": true}, "renameByName": names}},
    ])
}

fn options(look: Look) -> Json {
    match look {
        Look::Number => json!({
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            "colorMode": "value", "graphMode": "none", "textMode": "auto",
        }),
        Look::Lines => json!({
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }),
        Look::Table => json!({"cellHeight": "sm", "showHeader": true}),
        // Cividis is made for deficient colour vision.
        Look::Heatmap => json!({
            "calculate": false, "yAxis": {"unit": "s"}, "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Cividis", "steps": 64},
        }),
        Look::States => {
            json!({"showValue": "auto", "mergeValues": true, "rowHeight": 0.8, "legend": {"showLegend": false}})
        }
    }
}

fn colour(colour: Colour) -> &'static str {
    match colour {
        Colour::Blue => "#0072B2",
        Colour::Orange => "#E69F00",
        Colour::Vermillion => "#D55E00",
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "s",
        Unit::Days => "d",
        Unit::Versions => "short",
        Unit::VersionsPerSecond => "cps",
        Unit::RequestsPerSecond => "reqps",
        Unit::Bytes => "bytes",
        Unit::BytesPerSecond => "binBps",
        Unit::Share => "percentunit",
        Unit::Plain => "none",
    }
}
