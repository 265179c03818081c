use proptest::prelude::*;

use super::*;
use crate::job::JobSpec;

fn words() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-c]{1,2}", 2 => "[ -~]{1,12}", 1 => "\\PC{1,6}"]
}

fn selectors() -> impl Strategy<Value = Selector> {
    let values = || prop::collection::vec(prop_oneof![8 => words(), 1 => Just(String::new())], 1..4);
    prop_oneof![
        (words(), values()).prop_map(|(label, values)| Selector::In(label, values)),
        (words(), values()).prop_map(|(label, values)| Selector::NotIn(label, values)),
        words().prop_map(Selector::Has),
        words().prop_map(Selector::Lacks),
    ]
}

fn with_group(placement: Placement, (what, group): (u8, String)) -> Placement {
    match what {
        0 => placement.group(group),
        1 => placement.beside(group),
        2 => placement.prefer_beside(group),
        _ => placement.apart(group),
    }
}

proptest! {
    #[test]
    fn what_is_said_is_kept_whatever_its_texts_and_order(
        required in prop::collection::vec(selectors(), 0..4),
        preferred in prop::collection::vec(selectors(), 0..4),
        groups in prop::collection::vec((0_u8..4, "[a-z0-9_.-]{1,30}x"), 0..6),
    ) {
        let said = |backwards: bool| {
            let turned = |mut list: Vec<Selector>| {
                if backwards { list.reverse() }
                list
            };
            let placement = turned(required.clone()).into_iter().fold(Placement::anywhere(), Placement::require);
            let placement = turned(preferred.clone()).into_iter().fold(placement, Placement::prefer);
            groups.clone().into_iter().fold(placement, with_group)
        };
        let placement = said(false);
        let resources = Resources::none().cpu_millis(7).placed(&placement);
        let read = resources.placement();
        prop_assert_eq!(read.as_ref(), Some(&placement));
        prop_assert_eq!(&resources, &Resources::none().cpu_millis(7).placed(&said(true)));
        prop_assert_eq!(resources.named().count(), 0, "no worker needs to have it");
        prop_assert_eq!(resources.placed(&Placement::anywhere()), Resources::none().cpu_millis(7));
    }

    #[test]
    fn no_text_makes_it_panic(pieces in prop::collection::vec("[a-z0-9_.]{0,20}", 0..3)) {
        let name = |(n, piece): (usize, &String)| Name::new(format!("hodei.place.{n:02}.{piece}")).ok();
        let names = pieces.iter().enumerate().filter_map(name);
        let resources = names.fold(Resources::none(), |all, name| all.custom(name, 1));
        if let Some(placement) = resources.placement() {
            // What can be read is what would be written, or is said in another order.
            prop_assert_eq!(Resources::none().placed(&placement).placement(), Some(placement));
        }
    }
}

#[test]
fn the_names_in_stores_stay_as_they_are() {
    let placement = Placement::anywhere()
        .require(Selector::In("zone".into(), vec!["b".into(), "a".into()]))
        .require(Selector::Has("x/y".into()))
        .prefer(Selector::NotIn("os".into(), vec![String::new()]))
        .prefer(Selector::Lacks("spot".into()))
        .group("web")
        .beside("db")
        .prefer_beside("cache")
        .apart("web.2");
    let resources = Resources::none().placed(&placement);
    let names: Vec<&str> = resources.customs().map(|(name, _)| name.as_str()).collect();
    let text = "ri.zone.a.b..rh.x_2fy..pn.os._..pl.spot..g.web..b.db..n.cache..a.web_2e2..";
    assert_eq!(names, [format!("hodei.place.00.{text}")]);
}

#[test]
fn a_form_that_is_not_known_is_nothing_and_is_refused() {
    for part in ["00.z.a..", "00.ri.zone", "00.rh.a.b..", "00.g..", "00.g.a.b..", "00.g._4G..", "01.g.a.."] {
        let name = Name::new(format!("hodei.place.{part}")).unwrap();
        let resources = Resources::none().custom(name, 1);
        assert_eq!(resources.placement(), None, "{part}");
        let error = JobSpec::command(["true"]).resources(resources).build().unwrap_err();
        assert_eq!(error.faults()[0].code, "bad_form", "{part}");
    }
}

#[test]
fn a_spec_says_it_whatever_else_is_said_of_its_resources() {
    let build = |first: bool| {
        let spec = JobSpec::command(["true"]);
        let asks = Resources::none().cpu_millis(5);
        let spec = if first { spec.resources(asks.clone()) } else { spec };
        let spec = spec.require(Selector::is("zone", "a")).group("g").apart("g");
        let spec = if first { spec } else { spec.resources(asks) };
        spec.build().unwrap()
    };
    let spec = build(true);
    assert_eq!(spec, build(false));
    let placement = spec.placement().unwrap();
    assert_eq!(placement, Placement::anywhere().require(Selector::is("zone", "a")).group("g").apart("g"));
    assert!(!placement.names_no_group() && !placement.is_anywhere());
    let plain = JobSpec::command(["true"]).resources(Resources::none().cpu_millis(5)).build().unwrap();
    assert_ne!((spec.class(), spec.fingerprint()), (plain.class(), plain.fingerprint()));
    assert_eq!(plain.placement(), Some(Placement::anywhere()));
}

#[test]
fn each_rule_that_is_broken_is_named() {
    let spec = || JobSpec::command(["true"]);
    let many = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>();
    let groups = |n: usize| (0..n).fold(spec(), |spec, n| spec.group(n.to_string()));
    for (spec, field, code) in [
        (spec().require(Selector::Has(String::new())), "require.label", "empty"),
        (spec().require(Selector::Has("l".repeat(129))), "require.label", "too_long"),
        (spec().prefer(Selector::Has("a\nb".into())), "prefer.label", "control_char"),
        (spec().prefer(Selector::is("a", "b\0")), "prefer.values", "nul"),
        (spec().require(Selector::In("a".into(), many(0))), "require.values", "empty"),
        (spec().require(Selector::NotIn("a".into(), many(17))), "require.values", "too_many"),
        (spec().require(Selector::is("a", "b".repeat(1_024))), "placement", "too_long"),
        (spec().group("no name"), "group", "bad_char"),
        (spec().beside(""), "beside", "empty"),
        (spec().prefer_beside("ñ"), "prefer_beside", "bad_char"),
        (spec().apart("g".repeat(129)), "apart", "too_long"),
        (spec().beside("g").apart("g"), "apart", "contradiction"),
        (groups(17), "placement", "too_many"),
    ] {
        let error = spec.build().unwrap_err();
        let faults: Vec<_> = error.faults().iter().map(|fault| (fault.field.as_str(), fault.code)).collect();
        assert_eq!(faults, [(field, code)]);
    }
    assert!(groups(16).group("0").build().is_ok(), "saying it twice is saying it once");
    let widest = spec().require(Selector::is("é".repeat(64), "é".repeat(448))).build().unwrap();
    assert_eq!(widest.placement().unwrap().required()[0].values(), ["é".repeat(448)]);
}
