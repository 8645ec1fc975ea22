package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	width, height = 7.5 * vg.Inch, 3.6 * vg.Inch
	margin        = 10 * vg.Millimeter / 3
	groupWidth    = 0.7 // of the distance between groups, taken by bars
	fontSize      = 11
)

// palette is that of Okabe and Ito, which the color-blind can tell apart. Stock comes first.
var palette = []color.Color{
	color.RGBA{0xe6, 0x9f, 0x00, 0xff},
	color.RGBA{0x00, 0x72, 0xb2, 0xff},
	color.RGBA{0x00, 0x9e, 0x73, 0xff},
	color.RGBA{0xcc, 0x79, 0xa7, 0xff},
	color.RGBA{0x56, 0xb4, 0xe9, 0xff},
	color.RGBA{0xd5, 0x5e, 0x00, 0xff},
	color.RGBA{0x99, 0x99, 0x99, 0xff},
}

// color is that of a series; one by itself has that of ours.
func (c chart) color(i int) color.Color {
	if len(c.series) == 1 {
		i = 1
	}
	return palette[i%len(palette)]
}

// drawAll leaves in the directory the plots of these charts and none of an earlier run.
func drawAll(dir string, charts []chart) error {
	old, err := filepath.Glob(filepath.Join(dir, "bench-*.svg"))
	if err != nil {
		return fmt.Errorf("plots of an earlier run: %w", err)
	}
	for _, c := range charts {
		svg, err := drawChart(c)
		if err != nil {
			return fmt.Errorf("plot %s: %w", c.name, err)
		}
		file := filepath.Join(dir, c.file())
		if err := os.WriteFile(file, svg, 0o644); err != nil {
			return fmt.Errorf("write a plot: %w", err)
		}
		old = slices.DeleteFunc(old, func(f string) bool { return f == file })
	}
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove a plot of an earlier run: %w", err)
		}
	}
	return nil
}

func drawChart(c chart) ([]byte, error) {
	p := newPlot(c)
	legend := newLegend()
	draws := map[style]func(*plot.Plot, *plot.Legend, chart) error{grouped: addGrouped, stacked: addStacked, lines: addLines}
	if c.baseline != 0 {
		p.Add(baseline(c.baseline)) // below the bars and their numbers
	}
	if err := draws[c.style](p, &legend, c); err != nil {
		return nil, err
	}
	// Room for the numbers above bars.
	p.Y.Min, p.Y.Max = 0, max(p.Y.Max, c.baseline)*1.1
	if p.Y.Max == 0 {
		p.Y.Max = 1
	}

	canvas := vgsvg.New(width, height)
	all := draw.New(canvas)
	inner := draw.Crop(all, margin, -margin, margin, -margin)
	all.SetColor(color.White) // whatever the page's background is
	all.Fill(all.Rectangle.Path())
	if len(c.series) > 1 {
		// Beside the plot, where it hides nothing.
		w := legend.Rectangle(inner).Size().X
		legend.Draw(draw.Crop(inner, inner.Rectangle.Size().X-w, 0, 0, -2*fontSize))
		inner = draw.Crop(inner, 0, -w-margin, 0, 0)
	}
	p.Draw(inner)
	return encode(canvas)
}

func encode(canvas *vgsvg.Canvas) ([]byte, error) {
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	// Who does not have the font takes one of the same widths.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), nil
}

func newPlot(c chart) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, c.y
	p.Title.Padding = margin
	for _, s := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		s.Font = sans(fontSize)
	}
	p.Title.TextStyle.Font = sans(fontSize + 2)
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal.Color = color.Gray{0xdd}
	p.Add(grid)
	return p
}

func newLegend() plot.Legend {
	l := plot.NewLegend()
	l.TextStyle.Font = sans(fontSize)
	l.Top, l.Left = true, true
	l.Padding = 1 * vg.Millimeter
	l.ThumbnailWidth = fontSize
	return l
}

func sans(points vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: points}
}

// spacing is about how far groups of bars are apart.
func spacing(c chart) vg.Length { return width * 0.75 / vg.Length(max(len(c.groups), 1)) }

func addGrouped(p *plot.Plot, legend *plot.Legend, c chart) error {
	w := min(spacing(c)*groupWidth/vg.Length(len(c.series)), vg.Inch/2)
	for i, s := range c.series {
		bars, err := newBars(s, w, c.color(i))
		if err != nil {
			return err
		}
		bars.Offset = w * (vg.Length(i) - vg.Length(len(c.series)-1)/2)
		labels, err := valuesAbove(bars)
		if err != nil {
			return err
		}
		p.Add(bars, labels)
		legend.Add(s.name, bars)
	}
	nominal(p, c)
	return nil
}

func addStacked(p *plot.Plot, legend *plot.Legend, c chart) error {
	w := min(spacing(c)*groupWidth, vg.Inch)
	all := make([]*plotter.BarChart, len(c.series))
	for i, s := range c.series {
		bars, err := newBars(s, w, c.color(i))
		if err != nil {
			return err
		}
		if i > 0 {
			bars.StackOn(all[i-1])
		}
		all[i] = bars
		p.Add(bars)
	}
	for i, bars := range slices.Backward(all) { // in the order in which they lie on each other
		legend.Add(c.series[i].name, bars)
	}
	nominal(p, c)
	return nil
}

func nominal(p *plot.Plot, c chart) {
	p.NominalX(c.groups...)
	p.X.Min, p.X.Max = -0.5, float64(len(c.groups))-0.5
	p.X.Width, p.X.Padding = 0, 0
}

func newBars(s series, w vg.Length, fill color.Color) (*plotter.BarChart, error) {
	bars, err := plotter.NewBarChart(plotter.Values(s.values), w)
	if err != nil {
		return nil, fmt.Errorf("bars of %s: %w", s.name, err)
	}
	bars.Color, bars.LineStyle.Width = fill, 0
	return bars, nil
}

func valuesAbove(bars *plotter.BarChart) (*plotter.Labels, error) {
	l := plotter.XYLabels{}
	for i, v := range bars.Values {
		l.XYs = append(l.XYs, plotter.XY{X: float64(i), Y: v})
		l.Labels = append(l.Labels, number(v))
	}
	labels, err := plotter.NewLabels(l)
	if err != nil {
		return nil, fmt.Errorf("numbers above bars: %w", err)
	}
	labels.Offset = vg.Point{X: bars.Offset, Y: vg.Millimeter / 2}
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font = sans(fontSize - 2)
		labels.TextStyle[i].XAlign = text.XCenter
	}
	return labels, nil
}

func addLines(p *plot.Plot, legend *plot.Legend, c chart) error {
	var ticks plot.ConstantTicks
	seen := map[float64]bool{}
	for i, s := range c.series {
		xys := make(plotter.XYs, len(s.x))
		for j, x := range s.x {
			xys[j] = plotter.XY{X: x, Y: s.values[j]}
			if !seen[x] {
				ticks = append(ticks, plot.Tick{Value: x, Label: number(x)})
			}
			seen[x] = true
		}
		line, points, err := plotter.NewLinePoints(xys)
		if err != nil {
			return fmt.Errorf("line of %s: %w", s.name, err)
		}
		line.Color, line.Width = c.color(i), 2
		points.Color, points.Radius, points.Shape = c.color(i), 3, draw.CircleGlyph{}
		p.Add(line, points)
		legend.Add(s.name, line, points)
	}
	p.X.Tick.Marker = ticks
	p.X.Min = 0
	return nil
}

func baseline(y float64) plot.Plotter {
	f := plotter.NewFunction(func(float64) float64 { return y })
	f.Color, f.Dashes = color.Gray{0x88}, []vg.Length{4, 3}
	return f
}
