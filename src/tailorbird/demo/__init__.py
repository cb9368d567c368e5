"""The demo: reads rendered pages with two trained models, built, published, served and asked over HTTP."""
