package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

const (
	million = 1e6
	percent = 0.01
	none    = "–"
)

// digits a number is rounded to: rounds differ by more than what is behind the third.
const digits = 3

func number(v float64) string { return significant(v, digits) }

// significant leaves out zeros at the end, so that a count is 3 and not 3.00.
func significant(v float64, digits int) string {
	return strconv.FormatFloat(round(v, digits), 'f', -1, 64)
}

func round(v float64, digits int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'e', digits-1, 64), 64)
	if err != nil {
		panic(err) // it was a number before
	}
	return r
}

// beside is v with as many digits as it takes to see on which side of the limit it is.
func beside(v, limit float64) string {
	const exact = 15
	d := digits
	for d < exact && cmp.Compare(round(v, d), limit) != cmp.Compare(v, limit) {
		d++
	}
	return significant(v, d)
}

// spread is the median and, if rounds differ, the least and the most.
func spread(v Values) string {
	if len(v) == 0 {
		return none
	}
	least, most := slices.Min(v), slices.Max(v)
	if least == most {
		return number(least)
	}
	return fmt.Sprintf("%s (%s to %s)", number(v.median()), number(least), number(most))
}

func ratioText(of, to Values) string {
	if r, ok := ratio(of, to); ok {
		return number(r)
	}
	return none
}

// size is bytes in the largest unit that leaves one or more.
func size(bytes float64) string {
	units := []string{"B", "KiB", "MiB", "GiB"}
	i := 0
	for ; bytes >= 1024 && i < len(units)-1; i++ {
		bytes /= 1024
	}
	return number(bytes) + " " + units[i]
}

// count is "1 chain" or "2 chains".
func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return strconv.Itoa(n) + " " + of + "s"
}
