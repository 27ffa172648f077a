"""Pictures of maps, and one HTML file that opens anywhere."""

from jaxsal.report.figure import cuts_png as cuts_png
from jaxsal.report.page import Finding as Finding
from jaxsal.report.page import Heading as Heading
from jaxsal.report.page import Page as Page
from jaxsal.report.page import render as render
