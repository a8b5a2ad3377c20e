use proptest::prelude::*;

use super::*;

const MOVIE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
    <SpimData version="0.2"><BasePath type="relative">.</BasePath><SequenceDescription>
    <ImageLoader format="bdv.hdf5"><hdf5 type="relative">a &amp; b.h5</hdf5></ImageLoader>
    <ViewSetups><ViewSetup><id>4</id><voxelSize><unit /><size>0 0 nothing</size></voxelSize></ViewSetup>
    <ViewSetup><id>3</id><name>nuclei</name><size>111 172 32</size>
    <voxelSize><unit>&#181;m</unit><size>0.5 0.25 2.0</size></voxelSize></ViewSetup>
    <Attributes name="channel"><Channel><id>9</id></Channel></Attributes></ViewSetups>
    <Timepoints type="pattern"><integerpattern>0-8:2, 10</integerpattern></Timepoints>
    <MissingViews><MissingView timepoint="4" setup="3" /><MissingView setup="4" timepoint="0"></MissingView></MissingViews>
    </SequenceDescription>
    <ViewRegistrations><ViewRegistration timepoint="0" setup="3"/></ViewRegistrations></SpimData>"#;

/// The document with another image loader.
fn with_loader(loader: &str) -> String {
    let (before, rest) = MOVIE.split_once("<ImageLoader").unwrap();
    format!("{before}{loader}{}", rest.split_once("</ImageLoader>").unwrap().1)
}

#[test]
fn names_sizes_and_units_are_read() {
    let data = SpimData::parse(MOVIE).unwrap();
    assert_eq!(data.h5_name(), Some("a & b.h5"));
    let voxel_size = VoxelSize::new([2.0, 0.25, 0.5]).ok();
    let nuclei = ViewSetup {
        id: 3,
        name: Some("nuclei".into()),
        size: Some([32, 172, 111]),
        voxel_size,
        unit: Some("µm".into()),
    };
    assert_eq!(data.setups, [nuclei, ViewSetup { id: 4, unit: Some(String::new()), ..ViewSetup::default() }]);
}

#[test]
fn timepoints_and_missing_views_are_read() {
    let data = SpimData::parse(MOVIE).unwrap();
    assert_eq!(data.timepoints, [0, 2, 4, 6, 8, 10]);
    assert_eq!(data.missing_views, [(0, 4), (4, 3)]);
    assert!(data.is_missing(4, 3) && !data.is_missing(3, 4));
    let pattern = r#"<Timepoints type="pattern"><integerpattern>0-8:2, 10</integerpattern></Timepoints>"#;
    for (element, expected) in [
        (r#"<Timepoints type="range"> <first> 5 </first><last>7</last></Timepoints>"#, vec![5, 6, 7]),
        (
            r#"<Timepoints type="list"><Timepoint><id>20210603</id></Timepoint><Timepoint><id>3</id></Timepoint></Timepoints>"#,
            vec![3, 20_210_603],
        ),
        ("", vec![]),
    ] {
        assert_eq!(SpimData::parse(&MOVIE.replace(pattern, element)).unwrap().timepoints, expected, "{element}");
    }
}

#[test]
fn documents_before_version_0_2_are_read() {
    let old = r#"<SpimData version="0.1"><BasePath type="relative">.</BasePath><SequenceDescription>
        <ViewSetup><id>0</id><size>4 3 2</size></ViewSetup><Timepoints type="range"><first>0</first><last>1</last></Timepoints>
        <ImageLoader class="viewer.hdf5.Hdf5ImageLoader"><hdf5 type="relative">a.h5</hdf5></ImageLoader>
        </SequenceDescription></SpimData>"#;
    let data = SpimData::parse(old).unwrap();
    assert_eq!((data.h5_name(), data.setups[0].size), (Some("a.h5"), Some([2, 3, 4])));
    assert_eq!(data.timepoints, [0, 1]);
}

#[test]
fn wrapped_loaders_are_looked_into() {
    let inner = r#"<ImageLoader format="bdv.hdf5"><hdf5 type="relative">movie.h5</hdf5></ImageLoader>"#;
    for outer in ["split.viewerimgloader", "spimreconstruction.wrapped.flatfield.default"] {
        let wrapped = with_loader(&format!(r#"<ImageLoader format="{outer}">{inner}</ImageLoader>"#));
        assert_eq!(SpimData::parse(&wrapped).unwrap().h5_name(), Some("movie.h5"), "{outer}");
    }
}

#[test]
fn other_formats_are_named_with_the_way_out() {
    for (loader, name) in [
        (
            r#"<ImageLoader format="bdv.n5" version="1.0"><n5 type="relative">movie.n5</n5></ImageLoader>"#,
            "in N5 (image loader \"bdv.n5\")",
        ),
        (r#"<ImageLoader format="bdv.multimg.zarr"><zarr type="relative">a.ome.zarr</zarr></ImageLoader>"#, "OME-Zarr"),
        (r#"<ImageLoader format="spimreconstruction.filelist"></ImageLoader>"#, "TIFF"),
        (r#"<ImageLoader format="split.viewerimgloader"><ImageLoader format="bdv.n5"/></ImageLoader>"#, "bdv.n5"),
        (r#"<ImageLoader format="my.own" />"#, "my.own"),
    ] {
        let reason = SpimData::parse(&with_loader(loader)).unwrap_err();
        assert!(reason.contains(name) && reason.contains("export them as HDF5/XML"), "{reason}");
    }
    assert!(SpimData::parse(&with_loader("")).unwrap_err().contains("does not name an HDF5 file"));
}

#[test]
fn entities_are_not_expanded() {
    let bomb = MOVIE.replace(
        "<SpimData version",
        r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]><SpimData version"#,
    );
    let data = SpimData::parse(&bomb.replace("nuclei", "x&b;&f;y")).unwrap();
    assert_eq!(data.setups[0].name.as_deref(), Some("xy"));
}

#[test]
fn damaged_documents_are_refused() {
    let deep = "<SpimData>".repeat(100_000);
    for text in [
        "",
        "<SpimData></SpimData>",
        "not xml",
        &MOVIE[..400],
        &MOVIE.replace("<id>3", "<id>x"),
        &MOVIE.replace("timepoint=\"4\"", ""),
        &MOVIE.replace("0-8:2", "0-8:0"),
        &deep,
    ] {
        assert!(SpimData::parse(text).is_err(), "{text:.60}");
    }
}

#[test]
fn documents_without_measure_are_refused() {
    let many = MOVIE.replacen("<ViewSetup>", &format!("{}<ViewSetup>", "<ViewSetup/>".repeat(70_000)), 1);
    let pieces = with_loader(&format!(
        "<ImageLoader><SetupIds>{}</SetupIds><hdf5>m.h5</hdf5></ImageLoader>",
        "<SetupIdDefinition/>".repeat(70_000)
    ));
    let pattern = MOVIE.replace("0-8:2", &format!("0-8:2{}", " ".repeat(1 << 20)));
    for (text, says) in [
        (&many, "more than 65536 view setups"),
        (&pieces, "more than 65536 pieces of split images"),
        (&pattern, "the text of its element SpimData/SequenceDescription/Timepoints/integerpattern is too long"),
    ] {
        let reason = SpimData::parse(text).unwrap_err();
        assert!(reason.contains(says), "{reason}");
    }
    let elsewhere = MOVIE.replacen("</SpimData>", &format!("<Notes>{}</Notes></SpimData>", "x".repeat(2 << 20)), 1);
    assert_eq!(SpimData::parse(&elsewhere), SpimData::parse(MOVIE));
}

#[test]
fn only_the_owner_of_a_description_may_be_led_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let inside = root.join("movie");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(root.join("secret.h5"), "").unwrap();
    std::os::unix::fs::symlink(root.join("secret.h5"), inside.join("link.h5")).unwrap();
    let secret = root.join("secret.h5").display().to_string();
    for target in ["../secret.h5", "link.h5", &secret] {
        let loader = format!(r#"<ImageLoader format="bdv.hdf5"><hdf5>{target}</hdf5></ImageLoader>"#);
        let data = SpimData::parse(&with_loader(&loader)).unwrap();
        let path = |reach| data.h5_path(&inside.join("m.xml"), reach);
        assert!(matches!(path(Reach::Folder), Err(BdvError::NoMovie { .. })), "{target}");
        assert_eq!(path(Reach::Anywhere).unwrap(), root.join("secret.h5"), "{target}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", at in 0..MOVIE.len()) {
        let _ = SpimData::parse(&text);
        let cut = MOVIE.char_indices().map(|(index, _)| index).take_while(|&index| index <= at).last().unwrap_or(0);
        let _ = SpimData::parse(&format!("{}{text}{}", &MOVIE[..cut], &MOVIE[cut..]));
    }
}
