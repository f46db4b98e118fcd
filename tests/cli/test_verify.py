"""``dropkey verify`` from the outside."""

from dropkey.cli import main


def test_every_site_is_proved(capsys):
    assert main(["verify", "vit_mini_patch2_8", "--drop-ratio", "0.5", "--pattern", "block"]) == 0
    out = capsys.readouterr().out
    assert out.count("drops as it should") == 4
    assert "untouched, bit for bit" in out


def test_image_size_reaches_the_model(capsys):
    assert main(["verify", "vit_mini_patch2_8", "--img-size", "12", "--pattern", "token"]) == 0
    assert "of 36 keys" in capsys.readouterr().out
