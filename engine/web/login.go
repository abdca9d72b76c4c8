package web

import (
	"net/http"
	"net/url"
	"strings"

	"berth.dev/berth/engine/access"
)

// loginForm bounds what is posted to the login, in bytes.
const loginForm = 8 << 10

// loginPage is the model of the login.
type loginPage struct {
	Next, Error string
}

func loginURL(next string) string {
	if next = local(next); next == "/" {
		return "/login"
	}
	return "/login?" + url.Values{"next": {next}}.Encode()
}

// local is a path of this server, or / when it leads elsewhere: browsers read
// // and \ as the beginning of another host.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") || u.Path == "/login" {
		return "/"
	}
	return next
}

func (p *page) askToken(w http.ResponseWriter, r *http.Request) {
	next := local(r.URL.Query().Get("next"))
	if _, ok := access.From(r.Context()); ok {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	p.showLogin(w, r, http.StatusOK, loginPage{Next: next})
}

func (p *page) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, loginForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the form could not be read", http.StatusBadRequest)
		return
	}
	form := loginPage{Next: local(r.PostForm.Get("next"))}
	token := strings.TrimSpace(r.PostForm.Get("token"))
	if token == "" {
		form.Error = "Enter a token."
		p.showLogin(w, r, http.StatusBadRequest, form)
		return
	}
	u, ok := p.Tokens.Check(token)
	if !ok || !u.Person() { // a node's opens no page
		p.wrongToken(w, r, form)
		return
	}
	p.Log.Info("logged in to the page", "user", u.Name, "from", r.RemoteAddr)
	access.Login(w, r, token)
	http.Redirect(w, r, form.Next, http.StatusSeeOther)
}

// wrongToken answers slowly, and turns attempts away when many wait: only wrong
// tokens get here, so nobody who has a right one is held up.
func (p *page) wrongToken(w http.ResponseWriter, r *http.Request, form loginPage) {
	select {
	case p.wrong <- struct{}{}:
		defer func() { <-p.wrong }()
	default:
		form.Error = "Too many wrong tokens at a time. Try again in a moment."
		p.showLogin(w, r, http.StatusTooManyRequests, form)
		return
	}
	p.Log.Info("wrong token on the page", "from", r.RemoteAddr)
	if !pause(r.Context(), p.pace.wrongToken) {
		return
	}
	form.Error = "This token is not valid. Copy the whole line out of admin.token in the data directory."
	p.showLogin(w, r, http.StatusForbidden, form)
}

func (p *page) logout(w http.ResponseWriter, r *http.Request) {
	access.Logout(w)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func (p *page) showLogin(w http.ResponseWriter, r *http.Request, status int, form loginPage) {
	p.show(w, r, status, newPicture("login", "Log in", form), access.User{}, "")
}
